-- The rows of these keys say what was deleted, so nothing is left to remember. Parameters, arrays of equal length: merchant_ids
-- (text[]), dates (date[]), metric_types (text[]).
DELETE FROM usage_deletion AS d
USING unnest(%(merchant_ids)s::text[], %(dates)s::date[], %(metric_types)s::text[]) AS k (merchant_id, date, metric_type)
WHERE d.merchant_id = k.merchant_id AND d.date = k.date AND d.metric_type = k.metric_type;
