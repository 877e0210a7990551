-- Keep until verification what the rows of live dates must hold at least: what this run read; of a row that carries
-- something, what it holds now, because the reading may be from before it was carried.
-- Why a full join: see count_differences.
-- Parameters: run_id, attempt, batch, dates (date[], the live ones), first and last (text, the range of merchants).
INSERT INTO usage_reading (run_id, attempt, batch, merchant_id, date, metric_type, value)
SELECT %(run_id)s, %(attempt)s, %(batch)s, s.merchant_id, s.date, s.metric_type, coalesce(m.metric_value, s.value)
FROM (SELECT * FROM pg_temp.usage_staged WHERE date = ANY (%(dates)s::date[])) AS s
FULL JOIN (
    SELECT merchant_id, date, metric_type, metric_value
    FROM merchant_usage
    WHERE date = ANY (%(dates)s::date[])
      AND merchant_id >= %(first)s::text COLLATE "C" AND merchant_id <= %(last)s::text COLLATE "C"
      AND carried <> 0
) AS m ON m.merchant_id = s.merchant_id COLLATE "C" AND m.date = s.date AND m.metric_type = s.metric_type COLLATE "C"
WHERE coalesce(s.value, -1) >= 0;
