-- Insert what has no row yet. Without ON CONFLICT, which takes two thirds more time: a parallel run that inserted the same row
-- meanwhile is a unique_violation, and the batch is stored anew with upsert_differences.
-- Ordered by the whole key, so that parallel writers cannot deadlock.
-- Returns, for each date: rows inserted.
WITH inserted AS (
    INSERT INTO merchant_usage AS m (merchant_id, date, metric_type, metric_value, carried, created_at, updated_at)
    SELECT merchant_id, date, metric_type, value, 0, now(), now()
    FROM pg_temp.usage_difference
    WHERE is_new
    ORDER BY merchant_id, date, metric_type
    RETURNING m.date
)
SELECT date, count(*) FROM inserted GROUP BY date;
