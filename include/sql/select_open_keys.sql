-- Keys of some dates that a good reading, or their end, resolves. Parameters: dates (date[]).
SELECT DISTINCT redis_key
FROM usage_dead_letter
WHERE resolved_at IS NULL AND reason <> 'counter_regressed' AND usage_date = ANY (%(dates)s::date[]);
