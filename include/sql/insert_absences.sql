-- Note keys that are gone; those that are noted already stay as they are. In one order, so that parallel runs cannot deadlock.
-- Parameters, arrays of equal length: merchant_ids (text[]), dates (date[]), metric_types (text[]); and seen_at.
INSERT INTO usage_absence (merchant_id, date, metric_type, seen_at)
SELECT k.merchant_id, k.date, k.metric_type, %(seen_at)s
FROM unnest(%(merchant_ids)s::text[], %(dates)s::date[], %(metric_types)s::text[]) AS k (merchant_id, date, metric_type)
ORDER BY k.date, k.merchant_id COLLATE "C", k.metric_type COLLATE "C"
ON CONFLICT (date, merchant_id, metric_type) DO NOTHING;
