-- What is stored of a merchant on a date, in the order in which it is sealed. Parameters: merchant_id, date.
SELECT metric_type, metric_value, carried
FROM merchant_usage
WHERE merchant_id = %(merchant_id)s AND date = %(date)s
ORDER BY metric_type COLLATE "C";
