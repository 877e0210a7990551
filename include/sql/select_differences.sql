-- Where PostgreSQL (m), the second reading of Redis (s) and what this run's reading demands (r) do not agree, both ways.
-- Agreeing keys are only counted, elsewhere: of a million keys usually none comes out here.
-- Parameters: dates (date[], whole days); merchant_dates (date[]) and merchant_ids (text[]) of equal length
-- (days of which only some merchants are in the run); run_id.
WITH stored AS (
    SELECT merchant_id, date, metric_type, metric_value, carried
    FROM merchant_usage
    WHERE date = ANY (%(dates)s::date[])
    UNION ALL
    SELECT merchant_id, date, metric_type, metric_value, carried
    FROM merchant_usage
    JOIN unnest(%(merchant_dates)s::date[], %(merchant_ids)s::text[]) AS k (date, merchant_id) USING (merchant_id, date)
), reading AS (
    SELECT merchant_id, date, metric_type, max(value) AS value
    FROM usage_reading
    WHERE run_id = %(run_id)s
    GROUP BY merchant_id, date, metric_type
)
SELECT merchant_id, date, metric_type, m.metric_value, m.carried, r.value AS read, s.value AS now
FROM stored m
FULL JOIN pg_temp.usage_staged s USING (merchant_id, date, metric_type)
FULL JOIN reading r USING (merchant_id, date, metric_type)
WHERE m.metric_value IS NULL
   OR (m.metric_value - m.carried) IS DISTINCT FROM s.value
   OR m.metric_value < r.value;
