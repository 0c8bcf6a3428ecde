-- name: RenewLease :exec
INSERT INTO outbox_lease (owner, expires) VALUES (sqlc.arg(owner), sqlc.arg(expires))
ON CONFLICT (owner) DO UPDATE SET expires = excluded.expires;

-- name: GetLease :one
SELECT expires FROM outbox_lease WHERE owner = sqlc.arg(owner);

-- name: DropLease :exec
DELETE FROM outbox_lease WHERE owner = sqlc.arg(owner);

-- name: DropLeasesBefore :exec
DELETE FROM outbox_lease WHERE expires < sqlc.arg(moment);

-- name: DropOtherLeases :exec
DELETE FROM outbox_lease WHERE owner <> sqlc.arg(owner);

-- name: InsertMessageEvent :exec
INSERT INTO outbox_event (message, recipient, number_box, class, state, bay, card, detail, parts, handoff, submit, at)
SELECT o.id, o.recipient, o.number, o.class, CAST(sqlc.arg(state) AS BIGINT), CAST(sqlc.arg(bay) AS TEXT), CAST(sqlc.arg(card) AS TEXT),
    CAST(sqlc.arg(detail) AS TEXT), CAST(sqlc.arg(parts) AS BIGINT), CAST(sqlc.arg(handoff) AS BIGINT), CAST(sqlc.arg(submit) AS BIGINT),
    CAST(sqlc.arg(at) AS BIGINT)
FROM outbox o WHERE o.id = sqlc.arg(message);

-- name: CountSpent :one
SELECT CAST(COALESCE(SUM(parts), 0) AS BIGINT) FROM outbox_event
WHERE state = 1 AND card = sqlc.arg(card) AND at >= sqlc.arg(since);

-- name: CountSpentBulk :one
SELECT CAST(COALESCE(SUM(parts), 0) AS BIGINT) FROM outbox_event
WHERE state = 1 AND card = sqlc.arg(card) AND at >= sqlc.arg(since) AND class = sqlc.arg(class);

-- name: ListMessageEvents :many
SELECT number, message, number_box, class, state, bay, card, detail, parts, handoff, submit, at
FROM outbox_event
WHERE at >= sqlc.arg(since) AND number > sqlc.arg(past)
ORDER BY number LIMIT sqlc.arg(most);

-- name: ListEventsOfMessage :many
SELECT number, message, number_box, class, state, bay, card, detail, parts, handoff, submit, at
FROM outbox_event
WHERE message = sqlc.arg(message)
ORDER BY number;

-- name: SweepMessageEvents :execrows
DELETE FROM outbox_event
WHERE number IN (SELECT e.number FROM outbox_event e WHERE e.at < sqlc.arg(before) ORDER BY e.at LIMIT sqlc.arg(most));

-- name: InsertIncoming :execrows
INSERT INTO incoming (mark, sender, text, bay, card, received)
VALUES (sqlc.arg(mark), sqlc.arg(sender), sqlc.arg(text), sqlc.arg(bay), sqlc.arg(card), sqlc.arg(received))
ON CONFLICT (mark) DO NOTHING;

-- name: ListIncoming :many
SELECT mark, sender, text, bay, card, received FROM incoming
WHERE received >= sqlc.arg(since) ORDER BY received LIMIT sqlc.arg(most);

-- name: SweepIncoming :execrows
DELETE FROM incoming
WHERE mark IN (SELECT i.mark FROM incoming i WHERE i.received < sqlc.arg(before) ORDER BY i.received LIMIT sqlc.arg(most));

-- name: AddOptOut :exec
INSERT INTO opt_out (recipient, since, number) VALUES (sqlc.arg(recipient), sqlc.arg(since), sqlc.arg(number))
ON CONFLICT (recipient) DO NOTHING;

-- name: DropOptOut :execrows
DELETE FROM opt_out WHERE recipient = sqlc.arg(recipient);

-- name: CountOptOut :one
SELECT COUNT(*) FROM opt_out WHERE recipient = sqlc.arg(recipient);
