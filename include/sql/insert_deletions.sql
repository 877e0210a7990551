-- Write down which keys clean-up is about to delete, and what they hold. Parameters, arrays of equal length: merchant_ids (text[]),
-- dates (date[]), metric_types (text[]), metric_values (bigint[]).
INSERT INTO usage_deletion (merchant_id, date, metric_type, value)
SELECT * FROM unnest(%(merchant_ids)s::text[], %(dates)s::date[], %(metric_types)s::text[], %(metric_values)s::bigint[])
ON CONFLICT (merchant_id, date, metric_type) DO UPDATE SET value = EXCLUDED.value, begun_at = now();
