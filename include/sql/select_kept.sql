-- For which of these keys was it decided that what is stored is right, and where did the counter stand then (NULL: it was gone)?
-- Only the last decision on a key counts, and only until the counter overtakes what was stored then: if it falls after
-- that, it falls anew. Parameters: keys (bytea[]) and stored (bigint[], what is stored now), of equal length.
SELECT k.redis_key, last_decision.redis_value
FROM unnest(%(keys)s::bytea[], %(stored)s::bigint[]) AS k (redis_key, stored)
JOIN LATERAL (
    SELECT decision, redis_value, postgres_value
    FROM usage_dead_letter AS l
    WHERE l.reason = 'counter_regressed' AND l.decision IS NOT NULL AND sha256(l.redis_key) = sha256(k.redis_key)
    ORDER BY resolved_at DESC, id DESC
    LIMIT 1
) AS last_decision ON true
WHERE last_decision.decision = 'keep' AND k.stored <= last_decision.postgres_value;
