-- What was decided of the dates of a period, in that order. redis_key is NULL where a whole date was decided.
-- Parameters: from_date, to_date.
SELECT redis_key, usage_date, decision, decided_by, decided_at, reason, approved_by, approved_at, approval_reason, value_before,
       value_after
FROM usage_decision
WHERE usage_date BETWEEN %(from_date)s AND %(to_date)s
ORDER BY decided_at, id;
