-- Nothing above an accepted value is demanded of its row any more, neither by runs that are under way.
-- Parameters, arrays of equal length: merchant_ids (text[]), dates (date[]), metric_types (text[]), metric_values (bigint[]).
UPDATE usage_reading AS r
SET value = k.metric_value
FROM unnest(%(merchant_ids)s::text[], %(dates)s::date[], %(metric_types)s::text[], %(metric_values)s::bigint[])
    AS k (merchant_id, date, metric_type, metric_value)
WHERE r.merchant_id = k.merchant_id AND r.date = k.date AND r.metric_type = k.metric_type AND r.value > k.metric_value;
