-- Counters that went backwards and wait for a decision, in key order, so that two deciders cannot deadlock.
-- Parameters: key (bytea or NULL for all), usage_date (date or NULL for all), first and last (bigint: ids of dead letters, or
-- NULL for all).
SELECT redis_key
FROM usage_dead_letter
WHERE resolved_at IS NULL AND reason = 'counter_regressed'
  AND (%(key)s::bytea IS NULL OR redis_key = %(key)s)
  AND (%(usage_date)s::date IS NULL OR usage_date = %(usage_date)s)
  AND (%(first)s::bigint IS NULL OR id BETWEEN %(first)s AND %(last)s)
ORDER BY redis_key;
