-- name: GetIdentityBySpidCode :one
SELECT subject, state, reason, attributes, password, created, last_login, identity_type
FROM identity
WHERE spid_code = sqlc.arg(spid_code);
