-- name: ListSigningKeys :many
SELECT label, certificate, published, activated, retired, withdrawn, destroyed, approval FROM signing_key ORDER BY published, label;

-- name: PutSigningKey :exec
INSERT INTO signing_key (label, certificate, published, activated, retired, withdrawn, destroyed, approval)
VALUES (sqlc.arg(label), sqlc.arg(certificate), sqlc.arg(published), sqlc.arg(activated), sqlc.arg(retired), sqlc.arg(withdrawn), sqlc.arg(destroyed), sqlc.arg(approval))
ON CONFLICT (label) DO UPDATE SET certificate = excluded.certificate, published = excluded.published, activated = excluded.activated,
    retired = excluded.retired, withdrawn = excluded.withdrawn, destroyed = excluded.destroyed, approval = excluded.approval;

-- name: ListWaitingTexts :many
SELECT id, wrapped FROM outbox WHERE id > sqlc.arg(past) AND length(wrapped) > 0 ORDER BY id LIMIT sqlc.arg(most);

-- name: ReplaceText :execrows
UPDATE outbox SET wrapped = sqlc.arg(wrapped) WHERE id = sqlc.arg(id) AND wrapped = sqlc.arg(was);

-- name: CountMentions :one
SELECT
    (SELECT COUNT(*) FROM outbox WHERE instr(outbox.wrapped, CAST(sqlc.arg(label) AS BLOB)) > 0) AS texts,
    (SELECT COUNT(*) FROM otp_push_key WHERE instr(otp_push_key.wrapped, CAST(sqlc.arg(label) AS BLOB)) > 0) AS push_keys,
    (SELECT COUNT(*) FROM otp_device WHERE instr(otp_device.blob, CAST(sqlc.arg(label) AS BLOB)) > 0) AS devices,
    (SELECT COUNT(*) FROM data_key WHERE instr(data_key.wrapped, CAST(sqlc.arg(label) AS BLOB)) > 0) AS data_keys,
    (SELECT COUNT(*) FROM identity WHERE instr(identity.password, CAST(sqlc.arg(pepper) AS TEXT)) = 1) AS passwords,
    (SELECT COUNT(*) FROM identity WHERE instr(identity.password, '$custode$1$') = 1) AS unnamed;

-- name: ReplacePassword :execrows
UPDATE identity SET password = sqlc.arg(password) WHERE subject = sqlc.arg(subject) AND password = sqlc.arg(was);

-- name: ListDevicesPast :many
SELECT serial, subject, state, vendor, is_app, kind, hash, digits, period, blob, mac, version, next, drift, failures, blocked, created,
    delivered, activated, suspended, ended, expires
FROM otp_device
WHERE serial > sqlc.arg(past) ORDER BY serial LIMIT sqlc.arg(most);

-- name: ResealDevice :execrows
UPDATE otp_device SET blob = sqlc.arg(blob), mac = sqlc.arg(mac)
WHERE serial = sqlc.arg(serial) AND blob = sqlc.arg(was_blob) AND mac = sqlc.arg(was_mac) AND subject = sqlc.arg(subject);

-- name: ListPushKeysPast :many
SELECT serial, wrapped FROM otp_push_key WHERE serial > sqlc.arg(past) ORDER BY serial LIMIT sqlc.arg(most);

-- name: ReplacePushKey :execrows
UPDATE otp_push_key SET wrapped = sqlc.arg(wrapped) WHERE serial = sqlc.arg(serial) AND wrapped = sqlc.arg(was);

-- name: ReplaceDataKey :execrows
UPDATE data_key SET wrapped = sqlc.arg(wrapped) WHERE id = sqlc.arg(id) AND wrapped = sqlc.arg(was);
