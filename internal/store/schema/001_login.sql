-- Times are nanoseconds since 1970 UTC, 0 for "never". Nothing is NULL: the
-- empty text and 0 stand for "none", as the zero values of the Go types do.

-- +goose Up

-- A login in progress. What every step rewrites is here; what never changes
-- after the request was verified is in flow_request.
CREATE TABLE flow (
    id         TEXT    NOT NULL PRIMARY KEY,
    version    BIGINT  NOT NULL CHECK (version > 0),
    step       BIGINT  NOT NULL,
    deadline   BIGINT  NOT NULL,
    browser    BLOB    NOT NULL CHECK (length(browser) = 32),
    sp         TEXT    NOT NULL,
    request_id TEXT    NOT NULL,
    progress   TEXT    NOT NULL
);

CREATE INDEX flow_by_deadline ON flow (deadline);
CREATE INDEX flow_by_request ON flow (sp, request_id);

CREATE TABLE flow_request (
    flow_id  TEXT NOT NULL PRIMARY KEY REFERENCES flow (id) ON DELETE CASCADE,
    document TEXT NOT NULL,
    raw      BLOB NOT NULL
);

-- The transaction register, and with its key the claim of a request: a request
-- of an SP is answered once.
CREATE TABLE answer (
    sp              TEXT   NOT NULL,
    request_id      TEXT   NOT NULL,
    request_issued  BIGINT NOT NULL,
    flow_id         TEXT   NOT NULL,
    spid_code       TEXT   NOT NULL,
    code            BIGINT NOT NULL,
    response_id     TEXT   NOT NULL,
    response_issued BIGINT NOT NULL,
    response_issuer TEXT   NOT NULL,
    assertion_id    TEXT   NOT NULL,
    name_id         TEXT   NOT NULL,
    answered        BIGINT NOT NULL,
    request_xml     BLOB   NOT NULL,
    response_xml    BLOB   NOT NULL,
    PRIMARY KEY (sp, request_id)
);

CREATE UNIQUE INDEX answer_by_response ON answer (response_id);
CREATE INDEX answer_by_spid_code ON answer (spid_code, answered);

CREATE TABLE identity (
    subject    TEXT   NOT NULL PRIMARY KEY,
    username   TEXT   NOT NULL UNIQUE,
    spid_code  TEXT   NOT NULL UNIQUE,
    state      BIGINT NOT NULL CHECK (state BETWEEN 1 AND 3),
    reason     TEXT   NOT NULL,
    phone      TEXT   NOT NULL,
    attributes TEXT   NOT NULL,
    password   TEXT   NOT NULL,
    created    BIGINT NOT NULL,
    last_login BIGINT NOT NULL
);

-- Who changed an identity, when and why. Only ever inserted into.
CREATE TABLE identity_event (
    subject    TEXT   NOT NULL REFERENCES identity (subject),
    number     BIGINT NOT NULL,
    what       BIGINT NOT NULL,
    from_state BIGINT NOT NULL,
    to_state   BIGINT NOT NULL,
    actor      TEXT   NOT NULL,
    reason     TEXT   NOT NULL,
    at         BIGINT NOT NULL,
    PRIMARY KEY (subject, number)
);

CREATE TABLE tally (
    tally_key BLOB   NOT NULL PRIMARY KEY CHECK (length(tally_key) = 32),
    failures  BIGINT NOT NULL,
    last_at   BIGINT NOT NULL
);

CREATE INDEX tally_by_last ON tally (last_at);

-- class and state: as package modem numbers them (append only). recovered: 1 while a message
-- that a dead process left in doubt may be tried once more.
CREATE TABLE outbox (
    id        TEXT   NOT NULL PRIMARY KEY,
    recipient TEXT   NOT NULL,
    wrapped    BLOB   NOT NULL,
    class     BIGINT NOT NULL,
    state     BIGINT NOT NULL,
    created   BIGINT NOT NULL,
    expires   BIGINT NOT NULL,
    attempts  BIGINT NOT NULL,
    recovered BIGINT NOT NULL CHECK (recovered IN (0, 1)),
    bay       TEXT   NOT NULL,
    detail    TEXT   NOT NULL,
    changed   BIGINT NOT NULL
);

CREATE INDEX outbox_by_state ON outbox (state, class, expires);
CREATE INDEX outbox_by_expiry ON outbox (expires);

-- state: 1 open, 2 burned, 3 retired.
CREATE TABLE challenge (
    id            TEXT   NOT NULL PRIMARY KEY,
    flow_id       TEXT   NOT NULL,
    subject       TEXT   NOT NULL,
    message_id    TEXT   NOT NULL UNIQUE REFERENCES outbox (id),
    mac           BLOB   NOT NULL CHECK (length(mac) >= 16),
    attempts_left BIGINT NOT NULL CHECK (attempts_left >= 0),
    state         BIGINT NOT NULL CHECK (state BETWEEN 1 AND 3),
    created       BIGINT NOT NULL,
    expires       BIGINT NOT NULL,
    closed        BIGINT NOT NULL
);

-- At most one open challenge per flow, whatever the program believes.
CREATE UNIQUE INDEX challenge_open ON challenge (flow_id) WHERE state = 1;
CREATE INDEX challenge_by_subject ON challenge (subject, created);
CREATE INDEX challenge_by_expiry ON challenge (expires);

-- +goose Down
DROP TABLE challenge;
DROP TABLE outbox;
DROP TABLE tally;
DROP TABLE identity_event;
DROP TABLE identity;
DROP TABLE answer;
DROP TABLE flow_request;
DROP TABLE flow;
