-- What is stored, a line a date and merchant, for people: rows, the sum of their counters (what is carried left out), their sum.
-- Parameters as in select_totals, and limit (bigint, lines at most).
SELECT date, merchant_id, count(*), coalesce(sum(metric_value - carried), 0), coalesce(sum(metric_value), 0)
FROM (
    SELECT merchant_id, date, metric_value, carried
    FROM merchant_usage
    WHERE date = ANY (%(dates)s::date[])
    UNION ALL
    SELECT merchant_id, date, metric_value, carried
    FROM merchant_usage
    JOIN unnest(%(merchant_dates)s::date[], %(merchant_ids)s::text[]) AS k (date, merchant_id) USING (merchant_id, date)
) AS stored
GROUP BY date, merchant_id
ORDER BY date, merchant_id
LIMIT %(limit)s;
