-- Write a decision down and close the letter. Parameters: key (bytea), decision, redis_value (the counter now, NULL: it is
-- gone), postgres_value (what is stored from now on), now.
UPDATE usage_dead_letter
SET resolved_at = %(now)s, decision = %(decision)s, redis_value = %(redis_value)s, postgres_value = %(postgres_value)s
WHERE resolved_at IS NULL AND reason = 'counter_regressed' AND coalesce(redis_key_sha256, sha256(redis_key)) = sha256(%(key)s);
