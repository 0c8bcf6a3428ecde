-- name: InsertDevice :exec
INSERT INTO otp_device (serial, subject, state, vendor, is_app, kind, hash, digits, period, blob, mac, version, next, drift, failures,
    blocked, created, delivered, activated, suspended, ended, expires)
VALUES (sqlc.arg(serial), sqlc.arg(subject), sqlc.arg(state), sqlc.arg(vendor), sqlc.arg(is_app), sqlc.arg(kind), sqlc.arg(hash),
    sqlc.arg(digits), sqlc.arg(period), sqlc.arg(blob), sqlc.arg(mac), sqlc.arg(version), sqlc.arg(next), sqlc.arg(drift),
    sqlc.arg(failures), sqlc.arg(blocked), sqlc.arg(created), sqlc.arg(delivered), sqlc.arg(activated), sqlc.arg(suspended),
    sqlc.arg(ended), sqlc.arg(expires));

-- name: GetDevice :one
SELECT serial, subject, state, vendor, is_app, kind, hash, digits, period, blob, mac, version, next, drift, failures, blocked, created,
    delivered, activated, suspended, ended, expires
FROM otp_device
WHERE serial = sqlc.arg(serial);

-- name: ListDevicesOf :many
SELECT serial, subject, state, vendor, is_app, kind, hash, digits, period, blob, mac, version, next, drift, failures, blocked, created,
    delivered, activated, suspended, ended, expires
FROM otp_device
WHERE subject = sqlc.arg(subject) AND subject <> ''
ORDER BY created, serial;

-- name: SwapDeviceCounter :many
UPDATE otp_device SET version = sqlc.arg(version), next = sqlc.arg(next), drift = sqlc.arg(drift), failures = sqlc.arg(failures),
    blocked = sqlc.arg(blocked)
WHERE serial = sqlc.arg(serial) AND version = sqlc.arg(seen) AND state IN (2, 3) AND next <= sqlc.arg(least)
RETURNING state, subject;

-- name: SetDeviceState :exec
UPDATE otp_device SET state = sqlc.arg(state) WHERE serial = sqlc.arg(serial);

-- name: MoveDevice :execrows
UPDATE otp_device SET state = sqlc.arg(to_state), subject = sqlc.arg(subject), mac = sqlc.arg(mac), version = sqlc.arg(version),
    next = sqlc.arg(next), drift = sqlc.arg(drift), failures = sqlc.arg(failures), blocked = sqlc.arg(blocked),
    delivered = CASE WHEN sqlc.arg(to_state) = 2 AND delivered = 0 THEN sqlc.arg(at) ELSE delivered END,
    activated = CASE WHEN sqlc.arg(to_state) = 3 AND activated = 0 THEN sqlc.arg(at) ELSE activated END,
    suspended = CASE WHEN sqlc.arg(to_state) = 5 THEN sqlc.arg(at) ELSE suspended END,
    ended = CASE WHEN sqlc.arg(to_state) >= 6 THEN sqlc.arg(at) ELSE ended END
WHERE serial = sqlc.arg(serial) AND version = sqlc.arg(seen) AND state = sqlc.arg(from_state) AND next <= sqlc.arg(least);

-- name: InsertDeviceEvent :exec
INSERT INTO otp_device_event (serial, number, from_state, to_state, subject, actor, reason, at)
VALUES (sqlc.arg(serial), (SELECT COUNT(*) + 1 FROM otp_device_event e WHERE e.serial = sqlc.arg(serial)), sqlc.arg(from_state),
    sqlc.arg(to_state), sqlc.arg(subject), sqlc.arg(actor), sqlc.arg(reason), sqlc.arg(at));

-- name: ListDeviceEvents :many
SELECT from_state, to_state, subject, actor, reason, at
FROM otp_device_event
WHERE serial = sqlc.arg(serial)
ORDER BY number;
