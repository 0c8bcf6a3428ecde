-- What the modem pool keeps: leases, the audit trail of messages, what cards
-- spent, what came in. Conventions of 001.

-- +goose Up

-- Who is sending a message: the lease of that process decides whether it is
-- still alive. Empty while nobody claims it.
ALTER TABLE outbox ADD COLUMN owner TEXT NOT NULL DEFAULT '';
-- The one bay that may send it; empty: any. Operators' tests only.
ALTER TABLE outbox ADD COLUMN only_bay TEXT NOT NULL DEFAULT '';

-- For the limits per number and per prefix.
CREATE INDEX outbox_by_recipient ON outbox (recipient, created);
CREATE INDEX outbox_by_created ON outbox (created);

-- One row for a process that sends. It renews its row while it lives.
CREATE TABLE outbox_lease (
    owner   TEXT   NOT NULL PRIMARY KEY,
    expires BIGINT NOT NULL
);

-- The audit trail: one row for a step of a message, never its text. Only ever
-- inserted into. card is the IMSI; handoff (acceptance to hand-over) and submit
-- (hand-over to receipt) are nanoseconds, 0 when the step has none; parts counts
-- the SMS that a step to Sending lets out.
CREATE TABLE outbox_event (
    number    INTEGER NOT NULL PRIMARY KEY,
    message   TEXT    NOT NULL,
    recipient TEXT    NOT NULL,
    class     BIGINT  NOT NULL,
    state     BIGINT  NOT NULL,
    bay       TEXT    NOT NULL,
    card      TEXT    NOT NULL,
    detail    TEXT    NOT NULL,
    parts     BIGINT  NOT NULL,
    handoff   BIGINT  NOT NULL,
    submit    BIGINT  NOT NULL,
    at        BIGINT  NOT NULL
);

CREATE INDEX outbox_event_by_time ON outbox_event (at);
CREATE INDEX outbox_event_by_message ON outbox_event (message);
-- What a card spent since a moment (state 1 is Sending).
CREATE INDEX outbox_event_by_card ON outbox_event (card, at) WHERE state = 1;

-- What people sent to us. mark names a message on one card, so that one that was
-- read twice is kept once.
CREATE TABLE incoming (
    mark     TEXT   NOT NULL PRIMARY KEY,
    sender   TEXT   NOT NULL,
    text     TEXT   NOT NULL,
    bay      TEXT   NOT NULL,
    card     TEXT   NOT NULL,
    received BIGINT NOT NULL
);

CREATE INDEX incoming_by_time ON incoming (received);

-- Numbers that want no bulk messages.
CREATE TABLE opt_out (
    recipient TEXT   NOT NULL PRIMARY KEY,
    since     BIGINT NOT NULL
);

-- +goose Down
DROP TABLE opt_out;
DROP TABLE incoming;
DROP TABLE outbox_event;
DROP TABLE outbox_lease;
DROP INDEX outbox_by_created;
DROP INDEX outbox_by_recipient;
ALTER TABLE outbox DROP COLUMN only_bay;
ALTER TABLE outbox DROP COLUMN owner;
