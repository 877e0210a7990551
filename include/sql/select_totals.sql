-- Rows and their sum, day by day, of what a run has to verify. Parameters as in select_differences.
SELECT date, count(*), sum(metric_value)
FROM (
    SELECT date, metric_value
    FROM merchant_usage
    WHERE date = ANY (%(dates)s::date[])
    UNION ALL
    SELECT date, metric_value
    FROM merchant_usage
    JOIN unnest(%(merchant_dates)s::date[], %(merchant_ids)s::text[]) AS k (date, merchant_id) USING (merchant_id, date)
) AS stored
GROUP BY date;
