-- Raise merchant_usage to what was read, never lower it, and touch no row that does not change.
-- Joining for the differences first spares unchanged rows the lock and the WAL that ON CONFLICT ... WHERE costs.
-- Ordered by the whole key, so that parallel writers cannot deadlock. The WHERE of DO UPDATE decides again on
-- the locked row: whoever writes last, the larger value stays. Rows that carry something are left to
-- select_suspects: a reading from before Redis restarted must not be added to what was carried since.
-- The dates are said once more, because a join alone would read the history of years, partitions or not.
-- Parameters: dates (date[]), those that are staged. Returns, for each date: rows inserted, rows updated. An inserted row is one whose two times are the same.
WITH difference AS (
    SELECT s.merchant_id, s.date, s.metric_type, s.value
    FROM pg_temp.usage_staged s
    LEFT JOIN (SELECT * FROM merchant_usage WHERE date = ANY (%(dates)s::date[])) AS m
        USING (merchant_id, date, metric_type)
    WHERE m.metric_value IS NULL OR (s.value > m.metric_value AND m.carried = 0)
), upserted AS (
    INSERT INTO merchant_usage AS m (merchant_id, date, metric_type, metric_value, carried, created_at, updated_at)
    SELECT merchant_id, date, metric_type, value, 0, now(), now()
    FROM difference
    ORDER BY merchant_id, date, metric_type
    ON CONFLICT (merchant_id, date, metric_type) DO UPDATE
        SET metric_value = EXCLUDED.metric_value, updated_at = now()
        WHERE EXCLUDED.metric_value > m.metric_value AND m.carried = 0
    RETURNING m.date, m.created_at = m.updated_at AS inserted
)
SELECT date, count(*) FILTER (WHERE inserted), count(*) FILTER (WHERE NOT inserted)
FROM upserted
GROUP BY date;
