-- Counters that wait for a decision, in the order in which they were found, each with its newest proposal, if somebody made one.
-- By ids, so that a page begins where the one before ended, and never with what was passed already.
-- Parameters: usage_date (date or NULL for all), after (bigint, the id of the last one before), limit (bigint).
SELECT l.id, l.redis_key, l.usage_date, l.redis_value, l.postgres_value, l.first_seen_at,
       p.proposed_by, p.proposed_at, p.reason, p.value_before, p.value_after
FROM usage_dead_letter AS l
LEFT JOIN LATERAL (
    SELECT proposed_by, proposed_at, reason, value_before, value_after
    FROM usage_proposal
    WHERE letter_id = l.id
    ORDER BY id DESC
    LIMIT 1
) AS p ON true
WHERE l.resolved_at IS NULL AND l.reason = 'counter_regressed' AND l.id > %(after)s
  AND (%(usage_date)s::date IS NULL OR l.usage_date = %(usage_date)s)
ORDER BY l.id
LIMIT %(limit)s;
