-- How many different counters an attempt's readings cover. Parameters: run_id, attempt.
SELECT count(*)
FROM (
    SELECT DISTINCT merchant_id, date, metric_type FROM usage_reading WHERE run_id = %(run_id)s AND attempt = %(attempt)s
) AS covered;
