-- Open a dead letter for each key and reason, or count one more attempt on the row that is open. Of a regression
-- redis_value is the counter as it was last seen (NULL: gone), postgres_value what carrying would carry.
-- Parameters, arrays of equal length, unique by (key, reason) and in that order: keys (bytea[]), reasons (text[]),
-- details (text[]), dates (date[]), redis_values (bigint[]), postgres_values (bigint[]),
-- digests (bytea[]: the SHA-256 of a name of which the key is only the beginning, else NULL).
-- Returns how many rows are new.
WITH written AS (
    INSERT INTO usage_dead_letter AS d
        (redis_key, reason, detail, usage_date, redis_value, postgres_value, redis_key_sha256, first_seen_at, last_seen_at)
    SELECT *, now(), now()
    FROM unnest(%(keys)s::bytea[], %(reasons)s::text[], %(details)s::text[], %(dates)s::date[],
                %(redis_values)s::bigint[], %(postgres_values)s::bigint[], %(digests)s::bytea[])
    ON CONFLICT (coalesce(redis_key_sha256, sha256(redis_key)), reason) WHERE resolved_at IS NULL DO UPDATE
        SET last_seen_at = now(), attempts = d.attempts + 1, detail = EXCLUDED.detail,
            redis_value = EXCLUDED.redis_value, postgres_value = EXCLUDED.postgres_value
    RETURNING attempts
)
SELECT count(*) FILTER (WHERE attempts = 1) FROM written;
