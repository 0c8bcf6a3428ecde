-- name: CountRequest :one
SELECT (SELECT COUNT(*) FROM answer a WHERE a.sp = sqlc.arg(sp) AND a.request_id = sqlc.arg(request_id)) AS answers,
    (SELECT COUNT(*) FROM flow f WHERE f.sp = sqlc.arg(sp) AND f.request_id = sqlc.arg(request_id)) AS flows;

-- name: InsertFlow :exec
INSERT INTO flow (id, version, step, deadline, browser, sp, request_id, progress)
VALUES (sqlc.arg(id), 1, sqlc.arg(step), sqlc.arg(deadline), sqlc.arg(browser), sqlc.arg(sp), sqlc.arg(request_id), sqlc.arg(progress));

-- name: InsertFlowRequest :exec
INSERT INTO flow_request (flow_id, document, raw)
VALUES (sqlc.arg(flow_id), sqlc.arg(document), sqlc.arg(raw));

-- name: GetFlow :one
SELECT f.version, f.step, f.deadline, f.browser, f.sp, f.request_id, f.progress, r.document, r.raw
FROM flow f JOIN flow_request r ON r.flow_id = f.id
WHERE f.id = sqlc.arg(id);

-- name: UpdateFlow :execrows
UPDATE flow
SET version = version + 1, step = sqlc.arg(step), deadline = sqlc.arg(deadline), browser = sqlc.arg(browser), progress = sqlc.arg(progress)
WHERE id = sqlc.arg(id) AND version = sqlc.arg(version) AND sp = sqlc.arg(sp) AND request_id = sqlc.arg(request_id);

-- name: InsertAnswer :exec
INSERT INTO answer (sp, request_id, request_issued, flow_id, spid_code, code, response_id, response_issued, response_issuer,
    assertion_id, name_id, answered, request_xml, response_xml)
SELECT f.sp, f.request_id, sqlc.arg(request_issued), f.id, '', sqlc.arg(code), sqlc.arg(response_id),
    sqlc.arg(response_issued), sqlc.arg(response_issuer), sqlc.arg(assertion_id), '', sqlc.arg(answered), x'', x''
FROM flow f
WHERE f.id = sqlc.arg(flow_id);

-- name: GetAnswer :one
SELECT flow_id, request_issued, code, response_id, response_issued, response_issuer, assertion_id, answered
FROM answer
WHERE sp = sqlc.arg(sp) AND request_id = sqlc.arg(request_id);

-- name: SweepFlows :execrows
DELETE FROM flow
WHERE id IN (SELECT f.id FROM flow f WHERE f.deadline < sqlc.arg(before) ORDER BY f.deadline LIMIT sqlc.arg(most));
