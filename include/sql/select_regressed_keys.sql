-- Keys of some dates that went backwards and wait for a decision. Parameters: dates (date[]).
SELECT redis_key, usage_date
FROM usage_dead_letter
WHERE resolved_at IS NULL AND reason = 'counter_regressed' AND usage_date = ANY (%(dates)s::date[]);
