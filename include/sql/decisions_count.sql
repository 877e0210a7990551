-- How many counters of a date wait for a decision. Parameter: usage_date.
SELECT count(*)
FROM usage_dead_letter
WHERE resolved_at IS NULL AND reason = 'counter_regressed' AND usage_date = %(usage_date)s;
