-- name: CountChallenges :one
SELECT COUNT(*) FROM challenge WHERE subject = sqlc.arg(subject) AND created > sqlc.arg(after);

-- name: RetireChallenges :many
UPDATE challenge SET state = 3, closed = sqlc.arg(closed) WHERE flow_id = sqlc.arg(flow_id) AND state = 1
RETURNING message_id;

-- name: InsertChallenge :exec
INSERT INTO challenge (id, flow_id, subject, message_id, mac, attempts_left, state, created, expires, closed)
VALUES (sqlc.arg(id), sqlc.arg(flow_id), sqlc.arg(subject), sqlc.arg(message_id), sqlc.arg(mac), sqlc.arg(attempts_left), 1,
    sqlc.arg(created), sqlc.arg(expires), 0);

-- name: TakeAttempt :one
UPDATE challenge SET attempts_left = attempts_left - 1
WHERE id = sqlc.arg(id) AND flow_id = sqlc.arg(flow_id) AND subject = sqlc.arg(subject) AND state = 1 AND attempts_left > 0
    AND expires > sqlc.arg(now)
RETURNING message_id, mac, attempts_left, created, expires;

-- name: GetChallengeState :one
SELECT state, attempts_left, expires FROM challenge
WHERE id = sqlc.arg(id) AND flow_id = sqlc.arg(flow_id) AND subject = sqlc.arg(subject);

-- name: BurnChallenge :many
UPDATE challenge SET state = 2, closed = sqlc.arg(closed) WHERE id = sqlc.arg(id) AND state = 1
RETURNING message_id;

-- name: ChallengeExists :one
SELECT COUNT(*) FROM challenge WHERE id = sqlc.arg(id);

-- name: SweepChallenges :execrows
DELETE FROM challenge
WHERE id IN (SELECT c.id FROM challenge c WHERE c.expires < sqlc.arg(before) ORDER BY c.expires LIMIT sqlc.arg(most));
