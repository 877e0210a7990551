-- Open dead letters of a date, in the order in which they were opened: those that wait for a decision, each with its newest
-- proposal, or the others. Parameters: usage_date, waiting (boolean), after (bigint: the id before the first), limit (bigint).
SELECT l.id, l.redis_key, l.reason, l.detail, l.usage_date, l.first_seen_at, l.last_seen_at, l.attempts, l.redis_value, l.postgres_value,
       p.proposed_by, p.value_after
FROM usage_dead_letter AS l
LEFT JOIN LATERAL (
    SELECT proposed_by, value_after FROM usage_proposal WHERE letter_id = l.id ORDER BY id DESC LIMIT 1
) AS p ON true
WHERE l.usage_date = %(usage_date)s AND l.resolved_at IS NULL AND (l.reason = 'counter_regressed') = %(waiting)s AND l.id > %(after)s
ORDER BY l.id
LIMIT %(limit)s;
