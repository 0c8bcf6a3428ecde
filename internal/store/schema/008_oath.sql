-- OATH devices (hardware tokens and apps). Conventions of 001.

-- +goose Up

-- subject is empty for a device in the drawer. blob is the wrapped seed, mac binds it to
-- serial, subject and parameters: nothing here computes a code without the HSM.
-- version goes up with every change; next is the lowest counter or time step
-- that may still be accepted.
CREATE TABLE otp_device (
    serial    TEXT   NOT NULL PRIMARY KEY,
    subject   TEXT   NOT NULL,
    state     BIGINT NOT NULL CHECK (state BETWEEN 1 AND 7),
    vendor    TEXT   NOT NULL,
    is_app    BIGINT NOT NULL CHECK (is_app IN (0, 1)),
    kind      BIGINT NOT NULL,
    hash      BIGINT NOT NULL,
    digits    BIGINT NOT NULL,
    period    BIGINT NOT NULL,
    blob      BLOB   NOT NULL CHECK (length(blob) > 0),
    mac       BLOB   NOT NULL CHECK (length(mac) >= 32),
    version   BIGINT NOT NULL CHECK (version > 0),
    next      BIGINT NOT NULL CHECK (next >= 0),
    drift     BIGINT NOT NULL,
    failures  BIGINT NOT NULL CHECK (failures >= 0),
    blocked   BIGINT NOT NULL CHECK (blocked IN (0, 1)),
    created   BIGINT NOT NULL,
    delivered BIGINT NOT NULL,
    activated BIGINT NOT NULL,
    suspended BIGINT NOT NULL,
    ended     BIGINT NOT NULL,
    expires   BIGINT NOT NULL
);

CREATE INDEX otp_device_by_subject ON otp_device (subject, created) WHERE subject <> '';

-- The history of a device; rows are only added.
CREATE TABLE otp_device_event (
    serial     TEXT   NOT NULL REFERENCES otp_device (serial),
    number     BIGINT NOT NULL,
    from_state BIGINT NOT NULL,
    to_state   BIGINT NOT NULL,
    subject    TEXT   NOT NULL,
    actor      TEXT   NOT NULL,
    reason     TEXT   NOT NULL,
    at         BIGINT NOT NULL,
    PRIMARY KEY (serial, number)
);

-- +goose Down
DROP TABLE otp_device_event;
DROP TABLE otp_device;
