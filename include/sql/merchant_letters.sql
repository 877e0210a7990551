-- Open dead letters of a merchant's keys, {prefix}:{merchant}:{date}:{metric}, the newest first. Keys may hold any bytes, so they are
-- compared as such; what is left of one behind the merchant's id holds one colon, or it is of another merchant with one in its id.
-- Parameters: start (bytea: prefix, colon, id, colon), from_date, to_date, limit.
SELECT redis_key, reason, detail, usage_date, first_seen_at, attempts
FROM usage_dead_letter
WHERE resolved_at IS NULL AND usage_date BETWEEN %(from_date)s::date AND %(to_date)s::date
  AND substr(redis_key, 1, octet_length(%(start)s::bytea)) = %(start)s::bytea
  AND encode(substr(redis_key, octet_length(%(start)s::bytea) + 1), 'escape') ~ '^[^:]*:[^:]*$'
ORDER BY usage_date DESC, id DESC
LIMIT %(limit)s::bigint;
