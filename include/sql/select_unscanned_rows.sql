-- Rows of the dates of a run whose keys the scan did not find: the anti-join that locates them, when there are more rows
-- than keys. What the scan found is in usage_staged. Why a full join: see count_differences.
-- Parameters as in select_totals. Returns the key, metric_value, carried.
SELECT m.merchant_id, m.date, m.metric_type, m.metric_value, m.carried
FROM (
    SELECT merchant_id, date, metric_type, metric_value, carried, true AS is_row
    FROM merchant_usage
    WHERE date = ANY (%(dates)s::date[])
    UNION ALL
    SELECT merchant_id, date, metric_type, metric_value, carried, true
    FROM merchant_usage
    JOIN unnest(%(merchant_dates)s::date[], %(merchant_ids)s::text[]) AS k (date, merchant_id) USING (merchant_id, date)
) AS m
FULL JOIN (SELECT merchant_id, date, metric_type, true AS is_found FROM pg_temp.usage_staged) AS s
    ON m.merchant_id = s.merchant_id COLLATE "C" AND m.date = s.date AND m.metric_type = s.metric_type COLLATE "C"
WHERE coalesce(m.is_row, false) AND NOT coalesce(s.is_found, false);
