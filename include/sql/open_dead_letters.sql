-- Open a dead letter for each key and reason, or count one more attempt on the row that is open. What was stored
-- when a regression was opened stays, because a decision counts from there; what Redis holds is kept up to date.
-- Parameters, arrays of equal length, unique by (key, reason) and in that order: keys (bytea[]), reasons (text[]),
-- details (text[]), dates (date[]), redis_values (bigint[]), postgres_values (bigint[]).
-- Returns how many rows are new.
WITH written AS (
    INSERT INTO usage_dead_letter AS d
        (redis_key, reason, detail, usage_date, redis_value, postgres_value, first_seen_at, last_seen_at)
    SELECT *, now(), now()
    FROM unnest(%(keys)s::bytea[], %(reasons)s::text[], %(details)s::text[], %(dates)s::date[],
                %(redis_values)s::bigint[], %(postgres_values)s::bigint[])
    ON CONFLICT (sha256(redis_key), reason) WHERE resolved_at IS NULL DO UPDATE
        SET last_seen_at = now(), attempts = d.attempts + 1, detail = EXCLUDED.detail, redis_value = EXCLUDED.redis_value
    RETURNING attempts
)
SELECT count(*) FILTER (WHERE attempts = 1) FROM written;
