-- Keep until verification what the rows of live dates must hold at least: what this run read; of a row that carries
-- something, what it holds now, because the reading may be from before it was carried.
-- Parameters: run_id, dates (date[]).
INSERT INTO usage_reading (run_id, merchant_id, date, metric_type, value)
SELECT %(run_id)s, s.merchant_id, s.date, s.metric_type,
       CASE WHEN m.carried <> 0 THEN m.metric_value ELSE s.value END
FROM pg_temp.usage_staged s
LEFT JOIN (SELECT * FROM merchant_usage WHERE date = ANY (%(dates)s::date[])) AS m
    USING (merchant_id, date, metric_type)
WHERE s.date = ANY (%(dates)s::date[]);
