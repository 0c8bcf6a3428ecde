-- name: InsertSession :exec
INSERT INTO session (idx, cookie, subject, authenticated, created, used, ended)
VALUES (sqlc.arg(idx), sqlc.arg(cookie), sqlc.arg(subject), sqlc.arg(authenticated), sqlc.arg(created), sqlc.arg(used), 0);

-- name: GetSessionByCookie :one
SELECT idx, cookie, subject, authenticated, created, used, ended, noted FROM session WHERE cookie = sqlc.arg(cookie);

-- name: GetSessionByName :one
SELECT s.idx, s.cookie, s.subject, s.authenticated, s.created, s.used, s.ended, s.noted
FROM participant p JOIN session s ON s.idx = p.session
WHERE p.sp = sqlc.arg(sp) AND p.name_id = sqlc.arg(name_id);

-- name: TouchSession :execrows
UPDATE session SET used = CASE WHEN used < sqlc.arg(used) THEN sqlc.arg(used) ELSE used END
WHERE idx = sqlc.arg(idx) AND subject = sqlc.arg(subject) AND ended = 0;

-- name: EndSession :execrows
UPDATE session SET ended = sqlc.arg(ended), noted = 0 WHERE idx = sqlc.arg(idx) AND ended = 0;

-- name: NoteSession :execrows
UPDATE session SET noted = 1 WHERE idx = sqlc.arg(idx);

-- name: ListOverdueSessions :many
SELECT idx, cookie, subject, authenticated, created, used, ended, noted FROM session
WHERE ended = 0 AND (used < sqlc.arg(used_before) OR created < sqlc.arg(created_before))
ORDER BY used LIMIT sqlc.arg(most);

-- name: ListUnnotedSessions :many
SELECT idx, cookie, subject, authenticated, created, used, ended, noted FROM session WHERE noted = 0 AND ended < sqlc.arg(ended_before) ORDER BY ended LIMIT sqlc.arg(most);

-- name: InsertParticipant :exec
INSERT INTO participant (sp, name_id, session, names, joined)
VALUES (sqlc.arg(sp), sqlc.arg(name_id), sqlc.arg(session), sqlc.arg(names), sqlc.arg(joined));

-- name: ListParticipants :many
SELECT sp, name_id, names, joined FROM participant WHERE session = sqlc.arg(session) ORDER BY joined, name_id LIMIT sqlc.arg(most);

-- name: SweepSessions :execrows
DELETE FROM session
WHERE idx IN (SELECT s.idx FROM session s WHERE s.used < sqlc.arg(before) ORDER BY s.used LIMIT sqlc.arg(most));

-- name: InsertLogout :exec
INSERT INTO logout (id, version, session, browser, deadline, document, over)
VALUES (sqlc.arg(id), 1, sqlc.arg(session), sqlc.arg(browser), sqlc.arg(deadline), sqlc.arg(document), sqlc.arg(over));

-- name: InsertLogoutRequest :exec
INSERT INTO logout_request (request_id, logout_id) VALUES (sqlc.arg(request_id), sqlc.arg(logout_id));

-- name: GetLogout :one
SELECT id, version, session, browser, deadline, document, over FROM logout WHERE id = sqlc.arg(id);

-- name: GetLogoutOfSession :one
SELECT id, version, session, browser, deadline, document, over FROM logout WHERE session = sqlc.arg(session);

-- name: GetLogoutOfRequest :one
SELECT l.id, l.version, l.session, l.browser, l.deadline, l.document, l.over
FROM logout_request r JOIN logout l ON l.id = r.logout_id
WHERE r.request_id = sqlc.arg(request_id);

-- name: UpdateLogout :execrows
UPDATE logout SET version = version + 1, browser = sqlc.arg(browser), deadline = sqlc.arg(deadline), document = sqlc.arg(document), over = sqlc.arg(over)
WHERE id = sqlc.arg(id) AND version = sqlc.arg(version);

-- name: ListOverdueLogouts :many
SELECT id, version, session, browser, deadline, document, over FROM logout WHERE over = 0 AND deadline < sqlc.arg(before)
ORDER BY deadline LIMIT sqlc.arg(most);

-- name: SweepLogouts :execrows
DELETE FROM logout
WHERE id IN (SELECT l.id FROM logout l WHERE l.deadline < sqlc.arg(before) ORDER BY l.deadline LIMIT sqlc.arg(most));
