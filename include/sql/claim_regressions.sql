-- Take the counters that went backwards and that nobody was told of. Who updates a row has it to tell, so two runs never
-- tell the same. Parameters: told_at.
UPDATE usage_dead_letter
SET told_at = %(told_at)s
WHERE resolved_at IS NULL AND told_at IS NULL AND reason = 'counter_regressed'
RETURNING redis_key, usage_date, redis_value, postgres_value;
