-- What waits for a second person among some dead letters that are open: who proposed it, for how many counters, both sums, and
-- the last reason. Parameters: first and last (bigint: ids of letters).
SELECT p.proposed_by, count(*), sum(p.value_before), sum(p.value_after), (array_agg(p.reason ORDER BY p.id DESC))[1]
FROM usage_dead_letter AS l
CROSS JOIN LATERAL (
    SELECT id, proposed_by, value_before, value_after, reason
    FROM usage_proposal
    WHERE letter_id = l.id
    ORDER BY id DESC
    LIMIT 1
) AS p
WHERE l.resolved_at IS NULL AND l.reason = 'counter_regressed' AND l.id BETWEEN %(first)s AND %(last)s
GROUP BY p.proposed_by
ORDER BY p.proposed_by;
