-- name: CountPushes :one
SELECT COUNT(*) FROM otp_challenge WHERE subject = sqlc.arg(subject) AND created > sqlc.arg(after) AND number <> '';

-- name: RetireDeviceChallenges :exec
UPDATE otp_challenge SET state = 3, closed = sqlc.arg(closed) WHERE flow_id = sqlc.arg(flow_id) AND state = 1;

-- name: InsertDeviceChallenge :exec
INSERT INTO otp_challenge (id, flow_id, subject, serial, number, mac, attempts_left, state, created, expires, closed)
VALUES (sqlc.arg(id), sqlc.arg(flow_id), sqlc.arg(subject), sqlc.arg(serial), sqlc.arg(number), sqlc.arg(mac), sqlc.arg(attempts_left), 1,
    sqlc.arg(created), sqlc.arg(expires), 0);

-- name: GetDeviceChallenge :one
SELECT id, flow_id, subject, serial, number, mac, attempts_left, state, created, expires, closed
FROM otp_challenge
WHERE id = sqlc.arg(id);

-- name: TakeDeviceAttempt :many
UPDATE otp_challenge SET attempts_left = attempts_left - 1
WHERE id = sqlc.arg(id) AND flow_id = sqlc.arg(flow_id) AND subject = sqlc.arg(subject) AND state = 1 AND attempts_left > 0
    AND expires > sqlc.arg(now)
RETURNING attempts_left;

-- name: BurnDeviceChallenge :execrows
UPDATE otp_challenge SET state = 2, closed = sqlc.arg(closed) WHERE id = sqlc.arg(id) AND state = 1;

-- name: SweepDeviceChallenges :execrows
DELETE FROM otp_challenge
WHERE id IN (SELECT c.id FROM otp_challenge c WHERE c.expires < sqlc.arg(before) ORDER BY c.expires LIMIT sqlc.arg(most));

-- name: GetPushKey :one
SELECT wrapped FROM otp_push_key WHERE serial = sqlc.arg(serial);

-- name: InsertPushKey :exec
INSERT INTO otp_push_key (serial, wrapped, created) VALUES (sqlc.arg(serial), sqlc.arg(wrapped), sqlc.arg(created));

-- name: GetChoice :one
SELECT method, serial FROM otp_choice WHERE subject = sqlc.arg(subject);

-- name: SetChoice :exec
INSERT INTO otp_choice (subject, method, serial, changed) VALUES (sqlc.arg(subject), sqlc.arg(method), sqlc.arg(serial), sqlc.arg(changed))
ON CONFLICT (subject) DO UPDATE SET method = excluded.method, serial = excluded.serial, changed = excluded.changed;

-- name: InsertActivation :exec
INSERT INTO otp_activation (serial, subject, version, mac, tries, used, created, expires)
VALUES (sqlc.arg(serial), sqlc.arg(subject), sqlc.arg(version), sqlc.arg(mac), sqlc.arg(tries), 0, sqlc.arg(created),
    sqlc.arg(expires));

-- name: GetActivation :one
SELECT serial, subject, version, mac, tries, used, created, expires
FROM otp_activation
WHERE serial = sqlc.arg(serial);

-- name: SwapActivation :execrows
UPDATE otp_activation SET version = sqlc.arg(version), tries = sqlc.arg(tries), used = sqlc.arg(used)
WHERE serial = sqlc.arg(serial) AND version = sqlc.arg(seen);

-- name: SweepActivations :execrows
DELETE FROM otp_activation
WHERE serial IN (SELECT a.serial FROM otp_activation a WHERE a.expires < sqlc.arg(before) ORDER BY a.expires LIMIT sqlc.arg(most));

-- name: GetEmergency :one
SELECT subject, version, mac, tries, used, created
FROM otp_emergency
WHERE subject = sqlc.arg(subject);

-- name: SetEmergency :execrows
INSERT INTO otp_emergency (subject, version, mac, tries, used, created)
VALUES (sqlc.arg(subject), sqlc.arg(version), sqlc.arg(mac), sqlc.arg(tries), sqlc.arg(used), sqlc.arg(created))
ON CONFLICT (subject) DO UPDATE SET version = excluded.version, mac = excluded.mac, tries = excluded.tries, used = excluded.used,
    created = excluded.created
WHERE otp_emergency.version = excluded.version - 1;

-- name: InsertEscrow :exec
INSERT INTO otp_escrow (serial, copy, created) VALUES (sqlc.arg(serial), sqlc.arg(copy), sqlc.arg(created));

-- name: GetEscrow :one
SELECT copy FROM otp_escrow WHERE serial = sqlc.arg(serial);
