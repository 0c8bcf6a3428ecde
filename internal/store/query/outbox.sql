-- name: InsertMessage :exec
INSERT INTO outbox (id, recipient, wrapped, class, state, created, expires, attempts, recovered, bay, detail, changed, owner, only_bay, number)
VALUES (sqlc.arg(id), sqlc.arg(recipient), sqlc.arg(wrapped), sqlc.arg(class), sqlc.arg(state), sqlc.arg(created), sqlc.arg(expires),
    0, 0, '', '', sqlc.arg(created), '', sqlc.arg(only_bay), sqlc.arg(number));

-- name: ListMessages :many
SELECT id, number, wrapped, class, created, expires, attempts, recovered, only_bay
FROM outbox
WHERE state = sqlc.arg(state) AND recovered = sqlc.arg(recovered)
ORDER BY class, expires
LIMIT sqlc.arg(most);

-- name: GetMessageState :one
SELECT state, bay, owner, recovered FROM outbox WHERE id = sqlc.arg(id);

-- name: CountClosedCodes :one
SELECT COUNT(*) FROM challenge WHERE message_id = sqlc.arg(message_id) AND state <> 1;

-- name: GetChallengeMessageState :one
SELECT o.state FROM challenge c JOIN outbox o ON o.id = c.message_id WHERE c.id = sqlc.arg(id);

-- name: UpdateMessage :execrows
UPDATE outbox
SET state = sqlc.arg(to_state), attempts = attempts + sqlc.arg(more_attempts), recovered = 0, bay = sqlc.arg(bay),
    detail = sqlc.arg(detail), changed = sqlc.arg(changed), owner = sqlc.arg(owner)
WHERE id = sqlc.arg(id) AND state = sqlc.arg(from_state);

-- name: SetMessageRecovered :exec
UPDATE outbox SET recovered = sqlc.arg(recovered), owner = '' WHERE id = sqlc.arg(id) AND state = sqlc.arg(state);

-- name: EraseMessageText :exec
UPDATE outbox SET wrapped = sqlc.arg(wrapped) WHERE id = sqlc.arg(id);

-- name: ListMessagesInState :many
SELECT id, bay, expires, recovered, owner FROM outbox WHERE state = sqlc.arg(state) ORDER BY class, expires;

-- name: ListExpiredInState :many
SELECT id, bay FROM outbox WHERE state = sqlc.arg(state) AND expires <= sqlc.arg(moment) ORDER BY expires LIMIT sqlc.arg(most);

-- name: CountAccepted :one
SELECT COUNT(*) FROM outbox WHERE recipient = sqlc.arg(recipient) AND created >= sqlc.arg(since);

-- name: ListAccepted :many
SELECT id, number FROM outbox WHERE created >= sqlc.arg(since);

-- name: SweepMessages :execrows
DELETE FROM outbox
WHERE id IN (SELECT o.id FROM outbox o
    WHERE o.expires < sqlc.arg(before) AND NOT EXISTS (SELECT 1 FROM challenge c WHERE c.message_id = o.id)
    ORDER BY o.expires LIMIT sqlc.arg(most));
