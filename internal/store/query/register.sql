-- name: RaiseFloor :exec
INSERT INTO register_floor (log, records) VALUES (sqlc.arg(log), sqlc.arg(records))
ON CONFLICT (log) DO UPDATE SET records = max(register_floor.records, excluded.records);

-- name: GetFloor :one
SELECT records FROM register_floor WHERE log = sqlc.arg(log);
