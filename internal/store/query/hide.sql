-- name: ListDataKeys :many
SELECT id, wrapped, clean FROM data_key ORDER BY id;

-- name: InsertDataKey :exec
INSERT INTO data_key (id, wrapped, created, clean) VALUES (sqlc.arg(id), sqlc.arg(wrapped), sqlc.arg(created), 0);

-- name: SetDataKeysClean :exec
UPDATE data_key SET clean = 1;

-- name: ListClearIdentities :many
SELECT subject, username, spid_code, reason, phone, attributes FROM identity
WHERE subject > sqlc.arg(after) ORDER BY subject LIMIT sqlc.arg(most);

-- name: HideIdentity :exec
UPDATE identity SET username = sqlc.arg(username), spid_code = sqlc.arg(spid_code), reason = sqlc.arg(reason), phone = '',
    attributes = sqlc.arg(attributes)
WHERE subject = sqlc.arg(subject);

-- name: ListClearIdentityEvents :many
SELECT number, actor, reason FROM identity_event WHERE subject = sqlc.arg(subject);

-- name: HideIdentityEvent :exec
UPDATE identity_event SET actor = sqlc.arg(actor), reason = sqlc.arg(reason)
WHERE subject = sqlc.arg(subject) AND number = sqlc.arg(number);

-- name: ListClearAnswers :many
SELECT response_id, spid_code, name_id, request_xml, response_xml FROM answer
WHERE response_id > sqlc.arg(after) ORDER BY response_id LIMIT sqlc.arg(most);

-- name: HideAnswer :exec
UPDATE answer SET spid_code = sqlc.arg(spid_code), name_id = sqlc.arg(name_id), request_xml = sqlc.arg(request_xml),
    response_xml = sqlc.arg(response_xml)
WHERE response_id = sqlc.arg(response_id);

-- name: ListClearTallies :many
SELECT tally_key FROM tally;

-- name: HideTally :exec
UPDATE tally SET tally_key = sqlc.arg(blind) WHERE tally_key = sqlc.arg(tally_key);

-- name: ListClearMessages :many
SELECT id, recipient FROM outbox WHERE id > sqlc.arg(after) ORDER BY id LIMIT sqlc.arg(most);

-- name: HideMessage :exec
UPDATE outbox SET recipient = sqlc.arg(recipient), number = sqlc.arg(number) WHERE id = sqlc.arg(id);

-- name: ListClearMessageEvents :many
SELECT number, message, recipient FROM outbox_event WHERE number > sqlc.arg(after) ORDER BY number LIMIT sqlc.arg(most);

-- name: HideMessageEvent :exec
UPDATE outbox_event SET recipient = sqlc.arg(recipient), number_box = sqlc.arg(number_box) WHERE number = sqlc.arg(number);

-- name: ListClearIncoming :many
SELECT mark, sender, text FROM incoming WHERE mark > sqlc.arg(after) ORDER BY mark LIMIT sqlc.arg(most);

-- name: HideIncoming :exec
UPDATE incoming SET sender = sqlc.arg(sender), text = sqlc.arg(text) WHERE mark = sqlc.arg(mark);

-- name: ListClearOptOuts :many
SELECT recipient FROM opt_out;

-- name: HideOptOut :exec
UPDATE opt_out SET recipient = sqlc.arg(blind), number = sqlc.arg(number) WHERE recipient = CAST(sqlc.arg(clear) AS TEXT);

-- name: ListClearDeviceEvents :many
SELECT serial, number, actor, reason FROM otp_device_event
WHERE serial >= sqlc.arg(serial) AND (serial > sqlc.arg(serial) OR number > sqlc.arg(number)) AND typeof(actor) = 'text'
ORDER BY serial, number LIMIT sqlc.arg(most);

-- name: HideDeviceEvent :exec
UPDATE otp_device_event SET actor = sqlc.arg(actor), reason = sqlc.arg(reason)
WHERE serial = sqlc.arg(serial) AND number = sqlc.arg(number);
