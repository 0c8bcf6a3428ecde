-- Emergency codes of subjects. Conventions of 001.

-- +goose Up

CREATE TABLE otp_emergency (
    subject TEXT   NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL CHECK (version > 0),
    mac     BLOB   NOT NULL CHECK (length(mac) >= 32),
    tries   BIGINT NOT NULL CHECK (tries >= 0),
    used    BIGINT NOT NULL CHECK (used IN (0, 1)),
    created BIGINT NOT NULL
);

-- +goose Down
DROP TABLE otp_emergency;
