-- Rows of the dates of a run whose keys the scan did not find: the anti-join that locates them, when there are more rows
-- than keys. What the scan found is in usage_staged.
-- Parameters as in select_totals. Returns the key, metric_value, carried.
SELECT m.merchant_id, m.date, m.metric_type, m.metric_value, m.carried
FROM (
    SELECT merchant_id, date, metric_type, metric_value, carried
    FROM merchant_usage
    WHERE date = ANY (%(dates)s::date[])
    UNION ALL
    SELECT merchant_id, date, metric_type, metric_value, carried
    FROM merchant_usage
    JOIN unnest(%(merchant_dates)s::date[], %(merchant_ids)s::text[]) AS k (date, merchant_id) USING (merchant_id, date)
) AS m
WHERE NOT EXISTS (
    SELECT FROM pg_temp.usage_staged s
    WHERE s.merchant_id = m.merchant_id AND s.date = m.date AND s.metric_type = m.metric_type
);
