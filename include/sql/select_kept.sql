-- For which of these keys was it decided that what is stored is right, and where did the counter stand then?
-- Only the last decision on a key counts, and only until the counter overtakes what was stored then: if it falls after
-- that, it falls anew. Parameters: keys (bytea[]) and stored (bigint[], what is stored now), of equal length.
SELECT redis_key, redis_value
FROM (
    SELECT DISTINCT ON (redis_key) redis_key, decision, redis_value, postgres_value
    FROM usage_dead_letter
    WHERE reason = 'counter_regressed' AND decision IS NOT NULL AND redis_key = ANY (%(keys)s::bytea[])
    ORDER BY redis_key, resolved_at DESC, id DESC
) AS last_decision
JOIN unnest(%(keys)s::bytea[], %(stored)s::bigint[]) AS k (redis_key, stored) USING (redis_key)
WHERE decision = 'keep' AND stored <= postgres_value;
