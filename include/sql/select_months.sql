-- What a merchant used, by the months that some dates lie in. Parameters: merchant_id, from_date, to_date.
SELECT month, metric_type, value, days, days_sealed, closed
FROM merchant_usage_monthly
WHERE merchant_id = %(merchant_id)s
  AND month BETWEEN date_trunc('month', %(from_date)s::date::timestamp)::date AND %(to_date)s::date
ORDER BY month, metric_type;
