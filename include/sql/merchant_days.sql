-- What is stored of a merchant, the newest dates first. Parameters: merchant_id, from_date, to_date, metric_type (NULL: all), limit (bigint).
SELECT date, metric_type, metric_value, carried
FROM merchant_usage
WHERE merchant_id = %(merchant_id)s AND date BETWEEN %(from_date)s::date AND %(to_date)s::date
  AND (%(metric_type)s::text IS NULL OR metric_type = %(metric_type)s::text)
ORDER BY date DESC, metric_type
LIMIT %(limit)s::bigint;
