-- Readings of live dates are kept a page at a time: a row a counter took as long as storing the counters did. A run that is
-- under way meanwhile is told that its readings are gone, and is repeated from its scan.
DO $$
BEGIN
    IF EXISTS (
        SELECT FROM pg_attribute WHERE attrelid = 'usage_reading'::regclass AND attname = 'value' AND NOT attisdropped
    ) THEN
        TRUNCATE usage_reading;
        ALTER TABLE usage_reading
            DROP COLUMN merchant_id,
            DROP COLUMN metric_type,
            DROP COLUMN value,
            -- The SHA-256 of the page's Redis keys.
            ADD COLUMN page     bytea   NOT NULL,
            -- Whose they are, in their order: a JSON array of [metric types, merchant ids].
            ADD COLUMN keys     text    NOT NULL,
            -- What their rows must hold at least, with a ',' between each two; nothing where nothing good was read. A counter,
            -- or after a '=' the whole value of a row that carries something.
            ADD COLUMN counters text    NOT NULL,
            -- How many are not nothing.
            ADD COLUMN number   integer NOT NULL;
    END IF;
END
$$;
