-- Dates of which a person has decided something since a whole run last came to a verdict about their end. No parameters.
SELECT DISTINCT c.usage_date
FROM usage_decision AS c
WHERE c.usage_date IS NOT NULL AND c.decided_at > coalesce((
    SELECT max(r.started_at)
    FROM usage_run AS r
    WHERE r.usage_date = c.usage_date AND r.merchant_ids IS NULL AND r.settled AND r.verdict IS NOT NULL
), '-infinity')
ORDER BY c.usage_date;
