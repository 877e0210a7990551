-- For which of these keys was it decided that the stored value is right, and where did the counter stand then?
-- Only the last decision on a key counts. Parameters: keys (bytea[]).
SELECT redis_key, redis_value
FROM (
    SELECT DISTINCT ON (redis_key) redis_key, decision, redis_value
    FROM usage_dead_letter
    WHERE reason = 'counter_regressed' AND decision IS NOT NULL AND redis_key = ANY (%(keys)s::bytea[])
    ORDER BY redis_key, resolved_at DESC, id DESC
) AS last_decision
WHERE decision = 'keep';
