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
