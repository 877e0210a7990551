-- Write a decision down and close the letter. Parameters: key (bytea), decision, redis_value (the counter now),
-- postgres_value (what is stored now, before the decision).
UPDATE usage_dead_letter
SET resolved_at = now(), decision = %(decision)s, redis_value = %(redis_value)s, postgres_value = %(postgres_value)s
WHERE resolved_at IS NULL AND reason = 'counter_regressed' AND sha256(redis_key) = sha256(%(key)s);
