-- What is stored for some keys.
-- The days stand beside the keys so that the planner sees which months are concerned: else PostgreSQL before 18 locks all of them.
-- Parameters: merchant_ids (text[]), dates (date[]), metric_types (text[]), of equal length; days (date[]): the dates, each once.
SELECT m.merchant_id, m.date, m.metric_type, m.metric_value, m.carried
FROM merchant_usage m
JOIN unnest(%(merchant_ids)s::text[], %(dates)s::date[], %(metric_types)s::text[])
    AS k (merchant_id, date, metric_type) USING (merchant_id, date, metric_type)
WHERE m.date = ANY (%(days)s::date[]);
