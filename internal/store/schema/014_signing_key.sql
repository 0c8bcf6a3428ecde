-- +goose Up

-- Which signing key was in the metadata and in use, and since when (package
-- hsm/rollover). Times are 0 for "not yet".
CREATE TABLE signing_key (
    label       TEXT   NOT NULL PRIMARY KEY,
    certificate BLOB   NOT NULL CHECK (length(certificate) = 32),
    published   BIGINT NOT NULL,
    activated   BIGINT NOT NULL,
    retired     BIGINT NOT NULL,
    withdrawn   BIGINT NOT NULL,
    destroyed   BIGINT NOT NULL,
    approval    TEXT   NOT NULL
);

-- +goose Down
DROP TABLE signing_key;
