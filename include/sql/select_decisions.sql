-- What was decided, newest first. Parameters: usage_date (date or NULL for all), limit (bigint).
SELECT redis_key, usage_date, decision, decided_by, decided_at, reason, approved_by, approved_at, approval_reason,
       value_before, value_after
FROM usage_decision
WHERE %(usage_date)s::date IS NULL OR usage_date = %(usage_date)s
ORDER BY decided_at DESC, id DESC
LIMIT %(limit)s;
