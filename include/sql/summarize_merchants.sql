-- Redis beside PostgreSQL, a line a date and merchant, for people. Parameters as in select_differences.
WITH stored AS (
    SELECT merchant_id, date, metric_type, metric_value
    FROM merchant_usage
    WHERE date = ANY (%(dates)s::date[])
    UNION ALL
    SELECT merchant_id, date, metric_type, metric_value
    FROM merchant_usage
    JOIN unnest(%(merchant_dates)s::date[], %(merchant_ids)s::text[]) AS k (date, merchant_id) USING (merchant_id, date)
)
SELECT date, merchant_id, count(*), coalesce(sum(s.value), 0), coalesce(sum(m.metric_value), 0)
FROM stored m
FULL JOIN pg_temp.usage_staged s USING (merchant_id, date, metric_type)
GROUP BY date, merchant_id
ORDER BY date, merchant_id;
