-- The rows of a batch that carry something, which are few. Parameters: dates (date[]), first and last (text, the range of
-- merchants). Returns the key, and the whole value.
SELECT merchant_id, date, metric_type, metric_value
FROM merchant_usage
WHERE date = ANY (%(dates)s::date[])
  AND merchant_id >= %(first)s::text COLLATE "C" AND merchant_id <= %(last)s::text COLLATE "C"
  AND carried <> 0;
