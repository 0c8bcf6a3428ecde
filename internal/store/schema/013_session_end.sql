-- The end of every session, and what came of telling the others, goes into the
-- security log: what is not there yet must be found again after a crash.
-- Conventions of 001.

-- +goose Up

-- noted is 0 for a session that has ended until the security log has it.
ALTER TABLE session ADD COLUMN noted BIGINT NOT NULL DEFAULT 1;

CREATE INDEX session_open ON session (used) WHERE ended = 0;
CREATE INDEX session_not_noted ON session (ended) WHERE noted = 0;

-- over is 1 when nobody is left to be told.
ALTER TABLE logout ADD COLUMN over BIGINT NOT NULL DEFAULT 0;

CREATE INDEX logout_not_over ON logout (deadline) WHERE over = 0;

-- How many records the certified log holds says nothing about which log: one with more
-- records could be put in its place.
ALTER TABLE register_floor ADD COLUMN log_id TEXT NOT NULL DEFAULT '';

-- +goose Down
ALTER TABLE register_floor DROP COLUMN log_id;
DROP INDEX logout_not_over;
ALTER TABLE logout DROP COLUMN over;
DROP INDEX session_not_noted;
DROP INDEX session_open;
ALTER TABLE session DROP COLUMN noted;
