-- Raise merchant_usage to what was read, never lower it.
-- Ordered by the whole key, so that parallel writers cannot deadlock. The WHERE of DO UPDATE decides again on
-- the locked row: whoever writes last, the larger value stays. Rows that carry something are left to
-- select_suspects: a reading from before Redis restarted must not be added to what was carried since.
-- Parameters: with_new (boolean; false when insert_new has done those).
-- Returns, for each date: rows inserted, rows updated. An inserted row is one whose two times are the same.
WITH upserted AS (
    INSERT INTO merchant_usage AS m (merchant_id, date, metric_type, metric_value, carried, created_at, updated_at)
    SELECT merchant_id, date, metric_type, value, 0, now(), now()
    FROM pg_temp.usage_difference
    WHERE %(with_new)s OR NOT is_new
    ORDER BY merchant_id, date, metric_type
    ON CONFLICT (merchant_id, date, metric_type) DO UPDATE
        SET metric_value = EXCLUDED.metric_value, updated_at = now()
        WHERE EXCLUDED.metric_value > m.metric_value AND m.carried = 0
    RETURNING m.date, m.created_at = m.updated_at AS inserted
)
SELECT date, count(*) FILTER (WHERE inserted), count(*) FILTER (WHERE NOT inserted)
FROM upserted
GROUP BY date;
