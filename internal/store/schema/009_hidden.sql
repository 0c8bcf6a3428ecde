-- Personal data are hidden (package veil): what stood readable in text columns is
-- from here on a box or a blind name, as octets in the same columns. Migrate hides
-- what is there in the transaction that makes the first data key; what lives
-- minutes only is dropped.

-- +goose Up

-- The keys that hide: wrapped by the token's records key. The first row is made when everything
-- is hidden; clean says that the file was written anew after that, so that no free
-- page holds what it held before.
CREATE TABLE data_key (
    id      BIGINT NOT NULL PRIMARY KEY CHECK (id BETWEEN 1 AND 255),
    wrapped BLOB   NOT NULL CHECK (length(wrapped) > 0),
    created BIGINT NOT NULL,
    clean   BIGINT NOT NULL CHECK (clean IN (0, 1))
);

-- recipient and sender become blind names; the number itself, in a box.
ALTER TABLE outbox ADD COLUMN number BLOB NOT NULL DEFAULT x'';
ALTER TABLE outbox_event ADD COLUMN number_box BLOB NOT NULL DEFAULT x'';
ALTER TABLE opt_out ADD COLUMN number BLOB NOT NULL DEFAULT x'';

-- Nobody looks up by it, and it is hidden.
DROP INDEX answer_by_spid_code;

DELETE FROM flow_request;
DELETE FROM flow;
DELETE FROM logout_request;
DELETE FROM logout;

-- +goose Down
CREATE INDEX answer_by_spid_code ON answer (spid_code, answered);
ALTER TABLE opt_out DROP COLUMN number;
ALTER TABLE outbox_event DROP COLUMN number_box;
ALTER TABLE outbox DROP COLUMN number;
DROP TABLE data_key;
