-- What a merchant used, day by day, and whether the days are sealed. Parameters: merchant_id, from_date, to_date.
SELECT m.date AS day, m.metric_type, m.metric_value AS value, 1 AS days, (sealed.usage_date IS NOT NULL)::integer AS days_sealed,
       sealed.usage_date IS NOT NULL AS closed
FROM merchant_usage AS m
LEFT JOIN usage_sealed_date AS sealed ON sealed.usage_date = m.date
WHERE m.merchant_id = %(merchant_id)s AND m.date BETWEEN %(from_date)s::date AND %(to_date)s::date
ORDER BY m.date, m.metric_type;
