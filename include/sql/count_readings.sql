-- How many different counters this run's readings cover. Parameters: run_id.
SELECT count(*)
FROM (SELECT DISTINCT merchant_id, date, metric_type FROM usage_reading WHERE run_id = %(run_id)s) AS covered;
