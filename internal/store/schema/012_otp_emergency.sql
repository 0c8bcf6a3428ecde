-- Emergency codes of subjects, and copies of seeds for the recovery key. Conventions of 001.

-- +goose Up

CREATE TABLE otp_emergency (
    subject TEXT   NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL CHECK (version > 0),
    mac     BLOB   NOT NULL CHECK (length(mac) >= 32),
    tries   BIGINT NOT NULL CHECK (tries >= 0),
    used    BIGINT NOT NULL CHECK (used IN (0, 1)),
    created BIGINT NOT NULL
);

-- A seed encrypted to the off-line recovery key, made when the device was added.
CREATE TABLE otp_escrow (
    serial  TEXT   NOT NULL PRIMARY KEY REFERENCES otp_device (serial),
    copy    BLOB   NOT NULL CHECK (length(copy) > 0),
    created BIGINT NOT NULL
);

-- +goose Down
DROP TABLE otp_escrow;
DROP TABLE otp_emergency;
