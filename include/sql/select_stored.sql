-- What is stored of the dates of a run, as Redis would tell it: the key, and the counter in decimal digits ('' if there is no
-- number); and what the run's reading demands of the row, if the row does not hold it.
-- Parameters: prefix (text); dates (date[], whole days); merchant_dates (date[]) and merchant_ids (text[]) of equal length
-- (days of which only some merchants are in the run); run_id (NULL if the run has no readings).
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
SELECT convert_to(concat(%(prefix)s::text, ':', m.merchant_id, ':', m.date, ':', m.metric_type), 'UTF8'),
       coalesce((m.metric_value - m.carried)::text, '')::bytea,
       m.date,
       CASE WHEN m.metric_value < r.value THEN r.value END
FROM stored m
LEFT JOIN reading r USING (merchant_id, date, metric_type);
