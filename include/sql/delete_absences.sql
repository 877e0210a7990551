-- These keys are back. Parameters, arrays of equal length: merchant_ids (text[]), dates (date[]), metric_types (text[]).
DELETE FROM usage_absence AS a
USING unnest(%(merchant_ids)s::text[], %(dates)s::date[], %(metric_types)s::text[]) AS k (merchant_id, date, metric_type)
WHERE a.date = k.date AND a.merchant_id = k.merchant_id AND a.metric_type = k.metric_type;
