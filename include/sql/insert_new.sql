-- Insert what has no row yet. Without ON CONFLICT, which takes two thirds more time: a parallel run that inserts the same
-- row meanwhile is a unique_violation, and the batch is stored anew with upsert_staged alone.
-- Ordered by the whole key, so that parallel writers cannot deadlock. Without RETURNING, a tenth of the time:
-- count_differences has counted by date what there is to insert, and whoever calls compares the number of rows.
-- Parameters, and why a full join, as in count_differences.
INSERT INTO merchant_usage AS m (merchant_id, date, metric_type, metric_value, carried, created_at, updated_at)
SELECT s.merchant_id, s.date, s.metric_type, s.value, 0, now(), now()
FROM pg_temp.usage_staged s
FULL JOIN (
    SELECT merchant_id, date, metric_type, metric_value
    FROM merchant_usage
    WHERE date = ANY (%(dates)s::date[])
      AND merchant_id >= %(first)s::text COLLATE "C" AND merchant_id <= %(last)s::text COLLATE "C"
) AS m ON m.merchant_id = s.merchant_id COLLATE "C" AND m.date = s.date AND m.metric_type = s.metric_type COLLATE "C"
WHERE coalesce(s.value, -1) >= 0 AND m.metric_value IS NULL
ORDER BY s.merchant_id, s.date, s.metric_type;
