-- What is stored of a merchant's counters of a date, or of one of them. Parameters: merchant_id, date, metric_type (text or NULL).
SELECT metric_type, metric_value, carried, created_at, updated_at
FROM merchant_usage
WHERE merchant_id = %(merchant_id)s AND date = %(date)s
  AND (%(metric_type)s::text IS NULL OR metric_type = %(metric_type)s)
ORDER BY metric_type;
