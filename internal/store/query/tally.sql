-- name: GetTally :one
SELECT failures, last_at FROM tally WHERE tally_key = sqlc.arg(tally_key);

-- name: CountFailure :one
INSERT INTO tally (tally_key, failures, last_at) VALUES (sqlc.arg(tally_key), 1, sqlc.arg(last_at))
ON CONFLICT (tally_key) DO UPDATE SET failures = tally.failures + 1, last_at = excluded.last_at
RETURNING failures, last_at;

-- name: DeleteTally :exec
DELETE FROM tally WHERE tally_key = sqlc.arg(tally_key);

-- name: SweepTallies :execrows
DELETE FROM tally
WHERE tally_key IN (SELECT t.tally_key FROM tally t WHERE t.last_at < sqlc.arg(before) ORDER BY t.last_at LIMIT sqlc.arg(most));
