-- Activation of virtual devices. Conventions of 001.

-- +goose Up

-- An activation code that was issued; mac is the HSM's over it. The device itself does not
-- exist before the code is redeemed: its seed is drawn then.
CREATE TABLE otp_activation (
    serial  TEXT   NOT NULL PRIMARY KEY,
    subject TEXT   NOT NULL,
    version BIGINT NOT NULL CHECK (version > 0),
    mac     BLOB   NOT NULL CHECK (length(mac) >= 32),
    tries   BIGINT NOT NULL CHECK (tries >= 0),
    used    BIGINT NOT NULL CHECK (used IN (0, 1)),
    created BIGINT NOT NULL,
    expires BIGINT NOT NULL
);

CREATE INDEX otp_activation_by_expiry ON otp_activation (expires);

-- +goose Down
DROP TABLE otp_activation;
