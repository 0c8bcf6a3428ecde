-- name: RaiseFloor :exec
INSERT INTO register_floor (log, records) VALUES (sqlc.arg(log), sqlc.arg(records))
ON CONFLICT (log) DO UPDATE SET records = max(register_floor.records, excluded.records);

-- name: GetFloor :one
SELECT records FROM register_floor WHERE log = sqlc.arg(log);

-- name: GetLogID :one
SELECT log_id FROM register_floor WHERE log = sqlc.arg(log);

-- name: PinLogID :exec
INSERT INTO register_floor (log, records, log_id) VALUES (sqlc.arg(log), 0, sqlc.arg(log_id))
ON CONFLICT (log) DO UPDATE SET log_id = CASE WHEN register_floor.log_id = '' THEN excluded.log_id ELSE register_floor.log_id END;
