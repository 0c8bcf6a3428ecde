-- name: InsertIdentity :exec
INSERT INTO identity (subject, username, spid_code, state, reason, phone, attributes, password, created, last_login, identity_type)
VALUES (sqlc.arg(subject), sqlc.arg(username), sqlc.arg(spid_code), sqlc.arg(state), sqlc.arg(reason), '',
    sqlc.arg(attributes), sqlc.arg(password), sqlc.arg(created), sqlc.arg(last_login), sqlc.arg(identity_type));

-- name: GetIdentity :one
SELECT subject, state, reason, attributes, password, created, last_login, identity_type
FROM identity
WHERE subject = sqlc.arg(subject);

-- name: GetIdentityByUsername :one
SELECT subject, state, reason, attributes, password, created, last_login, identity_type
FROM identity
WHERE username = sqlc.arg(username);

-- name: UpdateIdentityState :execrows
UPDATE identity SET state = sqlc.arg(to_state), reason = sqlc.arg(reason)
WHERE subject = sqlc.arg(subject) AND state = sqlc.arg(from_state);

-- name: UpdateIdentityPassword :execrows
UPDATE identity SET password = sqlc.arg(password) WHERE subject = sqlc.arg(subject);

-- name: UpdateIdentityLastLogin :execrows
UPDATE identity SET last_login = sqlc.arg(last_login)
WHERE subject = sqlc.arg(subject) AND state = sqlc.arg(required_state);

-- name: InsertIdentityEvent :exec
INSERT INTO identity_event (subject, number, what, from_state, to_state, actor, reason, at)
VALUES (sqlc.arg(subject), (SELECT COUNT(*) + 1 FROM identity_event e WHERE e.subject = sqlc.arg(subject)), sqlc.arg(what),
    sqlc.arg(from_state), sqlc.arg(to_state), sqlc.arg(actor), sqlc.arg(reason), sqlc.arg(at));

-- name: ListIdentityEvents :many
SELECT what, from_state, to_state, actor, reason, at
FROM identity_event
WHERE subject = sqlc.arg(subject)
ORDER BY number;
