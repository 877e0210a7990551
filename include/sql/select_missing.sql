-- Keys that must have a row and have none: those of usage_staged (what the scan found), and those of which this run kept
-- a reading. The anti-join that locates them, when the cheap comparison says that some are missing.
-- Parameters: run_id (NULL if the run has no readings), all_dates (date[], those of the run). Returns the key, and the largest reading.
SELECT e.merchant_id, e.date, e.metric_type, max(e.read)
FROM (
    SELECT merchant_id, date, metric_type, NULL::bigint AS read FROM pg_temp.usage_staged
    UNION ALL
    SELECT merchant_id, date, metric_type, value FROM usage_reading WHERE run_id = %(run_id)s
) AS e
WHERE NOT EXISTS (
    SELECT FROM merchant_usage m
    WHERE m.merchant_id = e.merchant_id AND m.date = e.date AND m.metric_type = e.metric_type
      AND m.date = ANY (%(all_dates)s::date[])
)
GROUP BY e.merchant_id, e.date, e.metric_type;
