-- Open a dead letter for each key and reason, or count one more attempt on the row that is open.
-- Parameters, arrays of equal length, unique by (key, reason) and in that order: keys (bytea[]), reasons
-- (text[]), details (text[]), dates (date[]). Returns how many rows are new.
WITH written AS (
    INSERT INTO usage_dead_letter AS d (redis_key, reason, detail, usage_date, first_seen_at, last_seen_at)
    SELECT *, now(), now()
    FROM unnest(%(keys)s::bytea[], %(reasons)s::text[], %(details)s::text[], %(dates)s::date[])
    ON CONFLICT (sha256(redis_key), reason) WHERE resolved_at IS NULL DO UPDATE
        SET last_seen_at = now(), attempts = d.attempts + 1, detail = EXCLUDED.detail
    RETURNING attempts
)
SELECT count(*) FILTER (WHERE attempts = 1) FROM written;
