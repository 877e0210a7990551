-- Of a name that is too long for a usage key, and may have 512 MB, the beginning is kept and the SHA-256 of the whole.
-- One open row a key and reason, also where two names begin alike. ADD COLUMN IF NOT EXISTS locks the table even when
-- there is nothing to add: look first. The index keeps its name, so that it is not made again as it was.
DO $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_attribute
        WHERE attrelid = 'usage_dead_letter'::regclass AND attname = 'redis_key_sha256' AND NOT attisdropped
    ) THEN
        ALTER TABLE usage_dead_letter ADD COLUMN redis_key_sha256 bytea;
        DROP INDEX IF EXISTS usage_dead_letter_open;
        CREATE UNIQUE INDEX usage_dead_letter_open
            ON usage_dead_letter (coalesce(redis_key_sha256, sha256(redis_key)), reason) WHERE resolved_at IS NULL;
    END IF;
END
$$;
