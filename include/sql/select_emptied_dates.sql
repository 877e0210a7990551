-- Of some dates those of which Redis had nothing left when a whole run last came to a verdict about their end.
-- Parameters: dates (date[]).
SELECT d.usage_date
FROM unnest(%(dates)s::date[]) AS d (usage_date)
WHERE (
    SELECT r.verdict
    FROM usage_run AS r
    WHERE r.usage_date = d.usage_date AND r.merchant_ids IS NULL AND r.settled AND r.verdict IS NOT NULL
    ORDER BY r.started_at DESC, r.attempt DESC
    LIMIT 1
) = 'source_expired'
ORDER BY d.usage_date;
