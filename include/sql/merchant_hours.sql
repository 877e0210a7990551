-- How one counter grew: what was counted between two readings, and corrections. Parameters: merchant_id, date, metric_type, limit.
SELECT date, metric_type, from_at, to_at, metric_value, correction
FROM merchant_usage_hourly
WHERE merchant_id = %(merchant_id)s AND date = %(date)s AND metric_type = %(metric_type)s
ORDER BY to_at
LIMIT %(limit)s::bigint;
