-- What a run read of keys that have no row, or one that holds less: none, unless rows were lowered or deleted since.
-- Parameters: run_id (text), all_dates (date[], those of the run). Returns the key, and the largest reading.
SELECT r.merchant_id, r.date, r.metric_type, max(r.value)
FROM usage_reading r
WHERE r.run_id = %(run_id)s AND NOT EXISTS (
    SELECT FROM merchant_usage m
    WHERE m.merchant_id = r.merchant_id AND m.date = r.date AND m.metric_type = r.metric_type
      AND m.date = ANY (%(all_dates)s::date[]) AND m.metric_value >= r.value
)
GROUP BY r.merchant_id, r.date, r.metric_type;
