-- Rows, their sum, and the sum of their counters (what is carried left out), day by day, of what a run has to verify.
-- Parameters: dates (date[], whole days); merchant_dates (date[]) and merchant_ids (text[]) of equal length
-- (days of which only some merchants are in the run).
SELECT date, count(*), coalesce(sum(metric_value), 0), coalesce(sum(metric_value - carried), 0)
FROM (
    SELECT date, metric_value, carried
    FROM merchant_usage
    WHERE date = ANY (%(dates)s::date[])
    UNION ALL
    SELECT date, metric_value, carried
    FROM merchant_usage
    JOIN unnest(%(merchant_dates)s::date[], %(merchant_ids)s::text[]) AS k (date, merchant_id) USING (merchant_id, date)
) AS stored
GROUP BY date;
