-- name: GetPhoneBySpidCode :one
SELECT phone FROM identity WHERE spid_code = sqlc.arg(spid_code);
