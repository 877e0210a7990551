-- Of some keys those that went backwards and wait for a decision: the counter as last seen, what carrying would carry, and the
-- id of the dead letter. Parameters: keys (bytea[]).
SELECT redis_key, redis_value, postgres_value, id
FROM usage_dead_letter
WHERE resolved_at IS NULL AND reason = 'counter_regressed'
  AND coalesce(redis_key_sha256, sha256(redis_key)) IN (SELECT sha256(key) FROM unnest(%(keys)s::bytea[]) AS key);
