-- All open letters that a run can resolve by itself.
SELECT redis_key, reason, detail, usage_date
FROM usage_dead_letter
WHERE resolved_at IS NULL AND reason <> 'counter_regressed'
ORDER BY id;
