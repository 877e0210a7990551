-- The keys that could not be counted: of the dates of a period, and those without any date that were seen in it, by UTC.
-- Parameters: from_date, to_date.
SELECT redis_key, reason, detail, usage_date, first_seen_at, last_seen_at, attempts, resolved_at, decision, redis_value,
       postgres_value, redis_key_sha256
FROM usage_dead_letter
WHERE usage_date BETWEEN %(from_date)s AND %(to_date)s
   OR (usage_date IS NULL
       AND last_seen_at >= %(from_date)s::timestamp AT TIME ZONE 'UTC'
       AND first_seen_at < (%(to_date)s::date + 1)::timestamp AT TIME ZONE 'UTC')
ORDER BY usage_date, first_seen_at, id;
