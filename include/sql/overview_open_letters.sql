-- Open dead letters in the order in which they were opened, of a reason or of all: also those whose keys name no date.
-- Parameters: reason (text or NULL), after (bigint: the id before the first), limit (bigint).
SELECT l.id, l.redis_key, l.reason, l.detail, l.usage_date, l.first_seen_at, l.last_seen_at, l.attempts, l.redis_value, l.postgres_value,
       NULL AS proposed_by, NULL AS value_after
FROM usage_dead_letter AS l
WHERE l.resolved_at IS NULL AND (%(reason)s::text IS NULL OR l.reason = %(reason)s) AND l.id > %(after)s
ORDER BY l.id
LIMIT %(limit)s;
