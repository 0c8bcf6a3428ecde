-- +goose Up

-- Whose an identity is (SPID Avviso 18 v2), as package authcore numbers the types
-- (append only). Those that were there before are natural persons'.
ALTER TABLE identity ADD COLUMN identity_type BIGINT NOT NULL DEFAULT 1 CHECK (identity_type BETWEEN 1 AND 4);

-- +goose Down
ALTER TABLE identity DROP COLUMN identity_type;
