-- Take the open dead letters that nobody was told of, but for counters that went backwards. Who updates a row has it to
-- tell, so two runs never tell the same. Parameters: told_at. Returns, by reason, how many and the beginnings of three keys.
WITH news AS (
    UPDATE usage_dead_letter
    SET told_at = %(told_at)s
    WHERE resolved_at IS NULL AND told_at IS NULL AND reason <> 'counter_regressed'
    RETURNING id, reason, substring(redis_key FOR 200) AS beginning
)
SELECT reason, count(*), (array_agg(beginning ORDER BY id))[1:3]
FROM news
GROUP BY reason
ORDER BY reason;
