-- What a merchant used, by the weeks that some dates lie in. Parameters: merchant_id, from_date, to_date.
SELECT week, metric_type, value, days, days_sealed, closed
FROM merchant_usage_weekly
WHERE merchant_id = %(merchant_id)s AND week BETWEEN %(from_date)s::date - 6 AND %(to_date)s::date
ORDER BY week, metric_type;
