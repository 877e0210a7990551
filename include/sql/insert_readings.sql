-- Keep what this run read of its live dates until it is verified. Parameters: run_id, dates (date[]).
INSERT INTO usage_reading (run_id, merchant_id, date, metric_type, value)
SELECT %(run_id)s, merchant_id, date, metric_type, value
FROM pg_temp.usage_staged
WHERE date = ANY (%(dates)s::date[]);
