-- What an attempt read of keys that have no row, or one that holds less: none, unless rows were lowered or deleted since.
-- Whole days are read for that; why by a full join: see count_differences. Of a few merchants each row is found by the
-- primary key (OFFSET 0 keeps it so), which reads nothing of the others.
-- Parameters: run_id, attempt; dates (date[], whole days) and merchant_dates (date[], days of which only some merchants are in
-- the run). Returns the key, and the largest reading.
SELECT merchant_id, date, metric_type, max(value)
FROM (
    SELECT r.merchant_id, r.date, r.metric_type, r.value, m.metric_value
    FROM (
        SELECT merchant_id, date, metric_type, value
        FROM usage_reading
        WHERE run_id = %(run_id)s AND attempt = %(attempt)s AND date = ANY (%(dates)s::date[])
    ) AS r
    FULL JOIN (
        SELECT merchant_id, date, metric_type, metric_value FROM merchant_usage WHERE date = ANY (%(dates)s::date[])
    ) AS m ON m.merchant_id = r.merchant_id COLLATE "C" AND m.date = r.date AND m.metric_type = r.metric_type COLLATE "C"
    WHERE coalesce(r.value, -1) >= 0
    UNION ALL
    SELECT r.merchant_id, r.date, r.metric_type, r.value, m.metric_value
    FROM (
        SELECT *, merchant_id COLLATE "default" AS merchant, metric_type COLLATE "default" AS metric FROM usage_reading
    ) AS r
    LEFT JOIN LATERAL (
        SELECT metric_value
        FROM merchant_usage AS m
        WHERE m.merchant_id = r.merchant AND m.date = r.date AND m.metric_type = r.metric
          AND m.date = ANY (%(merchant_dates)s::date[])
        OFFSET 0
    ) AS m ON true
    WHERE r.run_id = %(run_id)s AND r.attempt = %(attempt)s AND r.date = ANY (%(merchant_dates)s::date[])
) AS reading
WHERE metric_value IS NULL OR metric_value < value
GROUP BY merchant_id, date, metric_type;
