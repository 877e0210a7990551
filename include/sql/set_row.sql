-- Write one locked row. Parameters: merchant_id, date, metric_type, metric_value, carried.
UPDATE merchant_usage
SET metric_value = %(metric_value)s, carried = %(carried)s, updated_at = now()
WHERE merchant_id = %(merchant_id)s AND date = %(date)s AND metric_type = %(metric_type)s;
