-- Open dead letters by reason. Counted up to a bound: counters that went backwards are all written down, a million of them too.
-- Parameters: limit (bigint).
SELECT reason, count(*)
FROM (SELECT reason FROM usage_dead_letter WHERE resolved_at IS NULL LIMIT %(limit)s) AS l
GROUP BY reason
ORDER BY count(*) DESC, reason;
