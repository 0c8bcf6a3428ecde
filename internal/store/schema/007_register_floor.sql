-- +goose Up

-- How many records the certified register was known to hold: fewer than that
-- in its folder means that its end was removed or an old copy was put back.
CREATE TABLE register_floor (
    log     TEXT   NOT NULL PRIMARY KEY,
    records BIGINT NOT NULL CHECK (records >= 0)
);

-- +goose Down
DROP TABLE register_floor;
