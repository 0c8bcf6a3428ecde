-- OATH devices in the login: challenges to them, the keys of apps, what was chosen
-- last. Conventions of 001.

-- +goose Up

-- state: 1 open, 2 burned, 3 retired. number and mac are of a pushed code; empty for one that
-- the device shows.
CREATE TABLE otp_challenge (
    id            TEXT   NOT NULL PRIMARY KEY,
    flow_id       TEXT   NOT NULL,
    subject       TEXT   NOT NULL,
    serial        TEXT   NOT NULL REFERENCES otp_device (serial),
    number        TEXT   NOT NULL CHECK (length(number) IN (0, 2)),
    mac           BLOB   NOT NULL CHECK (length(mac) = 0 AND number = '' OR length(mac) >= 32 AND number <> ''),
    attempts_left BIGINT NOT NULL CHECK (attempts_left >= 0),
    state         BIGINT NOT NULL CHECK (state BETWEEN 1 AND 3),
    created       BIGINT NOT NULL,
    expires       BIGINT NOT NULL,
    closed        BIGINT NOT NULL
);

-- At most one open challenge per flow, whatever the program believes.
CREATE UNIQUE INDEX otp_challenge_open ON otp_challenge (flow_id) WHERE state = 1;
CREATE INDEX otp_challenge_by_subject ON otp_challenge (subject, created) WHERE number <> '';
CREATE INDEX otp_challenge_by_expiry ON otp_challenge (expires);

-- The key of the app instance that has a device, wrapped by the HSM.
CREATE TABLE otp_push_key (
    serial  TEXT   NOT NULL PRIMARY KEY REFERENCES otp_device (serial),
    wrapped BLOB   NOT NULL CHECK (length(wrapped) > 0),
    created BIGINT NOT NULL
);

-- By which method, and with which device, a subject logged in last. method as package
-- authcore numbers them.
CREATE TABLE otp_choice (
    subject TEXT   NOT NULL PRIMARY KEY,
    method  BIGINT NOT NULL,
    serial  TEXT   NOT NULL,
    changed BIGINT NOT NULL
);

-- +goose Down
DROP TABLE otp_choice;
DROP TABLE otp_push_key;
DROP TABLE otp_challenge;
