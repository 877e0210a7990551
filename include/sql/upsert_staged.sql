-- Raise merchant_usage to what was read, never lower it, and touch no row that does not change.
-- Ordered by the whole key, so that parallel writers cannot deadlock. The WHERE of DO UPDATE decides again on
-- the locked row: whoever writes last, the larger value stays. Rows that carry something are left to
-- select_suspects: a reading from before Redis restarted must not be added to what was carried since.
-- Parameters, and why a full join, as in count_differences.
-- Returns, for each date: rows inserted, rows updated. An inserted row is one whose two times are the same.
WITH upserted AS (
    INSERT INTO merchant_usage AS m (merchant_id, date, metric_type, metric_value, carried, created_at, updated_at)
    SELECT s.merchant_id, s.date, s.metric_type, s.value, 0, now(), now()
    FROM pg_temp.usage_staged s
    FULL JOIN (
        SELECT merchant_id, date, metric_type, metric_value, carried
        FROM merchant_usage
        WHERE date = ANY (%(dates)s::date[])
          AND merchant_id >= %(first)s::text COLLATE "C" AND merchant_id <= %(last)s::text COLLATE "C"
    ) AS m ON m.merchant_id = s.merchant_id COLLATE "C" AND m.date = s.date AND m.metric_type = s.metric_type COLLATE "C"
    WHERE coalesce(s.value, -1) >= 0 AND (m.metric_value IS NULL OR (s.value > m.metric_value AND m.carried = 0))
    ORDER BY s.merchant_id, s.date, s.metric_type
    ON CONFLICT (merchant_id, date, metric_type) DO UPDATE
        SET metric_value = EXCLUDED.metric_value, updated_at = now()
        WHERE EXCLUDED.metric_value > m.metric_value AND m.carried = 0
    RETURNING m.date, m.created_at = m.updated_at AS inserted
)
SELECT date, count(*) FILTER (WHERE inserted), count(*) FILTER (WHERE NOT inserted)
FROM upserted
GROUP BY date;
