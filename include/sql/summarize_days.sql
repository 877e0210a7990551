-- The same as summarize_merchants, of whole days alone: see select_day_totals. Parameters: dates (date[]), limit (bigint, lines at most).
SELECT date, merchant_id, count(*), coalesce(sum(metric_value - carried), 0), coalesce(sum(metric_value), 0)
FROM merchant_usage
WHERE date = ANY (%(dates)s::date[])
GROUP BY date, merchant_id
ORDER BY date, merchant_id
LIMIT %(limit)s;
