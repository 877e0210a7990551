-- Keep until verification what the rows of live dates must hold at least: what this run read; of a row that carries
-- something, what it holds now, because the reading may be from before it was carried.
-- Parameters: run_id, dates (date[], the live ones), first and last (text, the range of merchants).
INSERT INTO usage_reading (run_id, merchant_id, date, metric_type, value)
SELECT %(run_id)s, s.merchant_id, s.date, s.metric_type, coalesce(m.metric_value, s.value)
FROM pg_temp.usage_staged s
LEFT JOIN (
    SELECT merchant_id, date, metric_type, metric_value
    FROM merchant_usage
    WHERE date = ANY (%(dates)s::date[])
      AND merchant_id >= %(first)s::text COLLATE "C" AND merchant_id <= %(last)s::text COLLATE "C"
      AND carried <> 0
) AS m USING (merchant_id, date, metric_type)
WHERE s.date = ANY (%(dates)s::date[]);
