-- How the counters of a merchant grew: what was counted between two readings. Parameters: merchant_id, from_date, to_date.
SELECT date, metric_type, from_at, to_at, metric_value, correction
FROM merchant_usage_hourly
WHERE merchant_id = %(merchant_id)s AND date BETWEEN %(from_date)s::date AND %(to_date)s::date
ORDER BY date, metric_type, to_at;
