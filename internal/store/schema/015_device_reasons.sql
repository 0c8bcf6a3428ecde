-- Who changed a device, and why, is hidden as in identity_event: operators write names and
-- telephone numbers into reasons. Migrate hides what is there, in actor and reason still as text, and
-- writes the file anew; until then it is not clean (009) and nothing opens it.

-- +goose Up
UPDATE data_key SET clean = 0;

-- +goose Down
SELECT 1;
