-- Those of some keys that are not noted as gone. Parameters, arrays of equal length: merchant_ids (text[]), dates (date[]),
-- metric_types (text[]).
SELECT k.merchant_id, k.date, k.metric_type
FROM unnest(%(merchant_ids)s::text[], %(dates)s::date[], %(metric_types)s::text[]) AS k (merchant_id, date, metric_type)
WHERE NOT EXISTS (
    SELECT FROM usage_absence AS a
    WHERE a.date = k.date AND a.merchant_id = k.merchant_id AND a.metric_type = k.metric_type
);
