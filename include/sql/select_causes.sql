-- Counters that wait for a decision, those together that were found in one go: what emptied Redis is one cause, however many
-- counters it concerns. Letters are numbered as they are opened, so a pause between two of them begins another cause.
-- Of each: its first and last letter, how many, how many merchants' keys are gone, the dates, both sums, and some keys, those
-- that fell most. Parameters: pause (interval), first and last (bigint: only letters between, or NULL), limit (bigint),
-- examples (integer).
WITH waiting AS (
    SELECT id, redis_key, usage_date, redis_value, postgres_value, first_seen_at,
           coalesce(first_seen_at - lag(first_seen_at) OVER (ORDER BY id) > %(pause)s::interval, false) AS begins
    FROM usage_dead_letter
    WHERE resolved_at IS NULL AND reason = 'counter_regressed'
      AND (%(first)s::bigint IS NULL OR id BETWEEN %(first)s AND %(last)s)
), grouped AS (
    SELECT *, count(*) FILTER (WHERE begins) OVER (ORDER BY id) AS cause
    FROM waiting
)
SELECT min(id), max(id), count(*), count(*) FILTER (WHERE redis_value IS NULL), array_agg(DISTINCT usage_date),
       min(first_seen_at), sum(coalesce(redis_value, 0)), sum(postgres_value),
       (array_agg(redis_key ORDER BY coalesce(postgres_value, 0) - coalesce(redis_value, 0) DESC, id))[1:%(examples)s::integer]
FROM grouped
GROUP BY cause
ORDER BY cause
LIMIT %(limit)s;
