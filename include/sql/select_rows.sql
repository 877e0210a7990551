-- What is stored for some keys. Parameters: merchant_ids (text[]), dates (date[]), metric_types (text[]), of equal length.
SELECT m.merchant_id, m.date, m.metric_type, m.metric_value, m.carried
FROM merchant_usage m
JOIN unnest(%(merchant_ids)s::text[], %(dates)s::date[], %(metric_types)s::text[])
    AS k (merchant_id, date, metric_type) USING (merchant_id, date, metric_type);
