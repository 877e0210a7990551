-- Write rows that are locked. Parameters, arrays of equal length: merchant_ids (text[]), dates (date[]),
-- metric_types (text[]), metric_values (bigint[]), carried (bigint[]); and days (date[]): the dates, each once, so that no other
-- month is locked.
-- Returns the key of each row that was written.
UPDATE merchant_usage AS m
SET metric_value = k.metric_value, carried = k.carried, updated_at = now()
FROM unnest(%(merchant_ids)s::text[], %(dates)s::date[], %(metric_types)s::text[], %(metric_values)s::bigint[],
            %(carried)s::bigint[]) AS k (merchant_id, date, metric_type, metric_value, carried)
WHERE m.merchant_id = k.merchant_id AND m.date = k.date AND m.metric_type = k.metric_type
  AND m.date = ANY (%(days)s::date[])
RETURNING m.merchant_id, m.date, m.metric_type;
