-- Lock rows in key order and read what they hold. While they are locked no run can raise them, so a reading
-- of Redis made now that is still lower means that the counter itself went backwards.
-- Parameters: merchant_ids (text[]), dates (date[]), metric_types (text[]), of equal length.
SELECT m.merchant_id, m.date, m.metric_type, m.metric_value, m.carried
FROM merchant_usage m
JOIN unnest(%(merchant_ids)s::text[], %(dates)s::date[], %(metric_types)s::text[])
    AS k (merchant_id, date, metric_type) USING (merchant_id, date, metric_type)
ORDER BY m.merchant_id, m.date, m.metric_type
FOR UPDATE OF m;
