-- Raise merchant_usage to what was read, never lower it, and touch no row that does not change.
-- Ordered by the whole key, so that parallel writers cannot deadlock. The WHERE of DO UPDATE decides again on
-- the locked row: whoever writes last, the larger value stays. Rows that carry something are left to
-- select_suspects: a reading from before Redis restarted must not be added to what was carried since.
-- What a raised row held before, and since when, goes into usage_hourly_history. If a parallel run has raised it meanwhile, that is
-- what this statement saw, which the other has written down as well; the value in between is left out, and an interval is longer.
-- updated_at never stands still or goes back, though a transaction may have waited for one that began later: points keep their order.
-- Parameters, and why a full join, as in count_differences; and history (boolean: whether it is kept).
-- Returns, for each date: rows inserted, rows updated; both hold just what was staged, which a trigger could have kept from them. An
-- inserted row is one whose two times are the same.
WITH different AS (
    SELECT s.merchant_id, s.date, s.metric_type, s.value, m.metric_value, m.updated_at
    FROM pg_temp.usage_staged s
    FULL JOIN (
        SELECT merchant_id, date, metric_type, metric_value, carried, updated_at
        FROM merchant_usage
        WHERE date = ANY (%(dates)s::date[])
          AND merchant_id >= %(first)s::text COLLATE "C" AND merchant_id <= %(last)s::text COLLATE "C"
    ) AS m ON m.merchant_id = s.merchant_id COLLATE "C" AND m.date = s.date AND m.metric_type = s.metric_type COLLATE "C"
    WHERE coalesce(s.value, -1) >= 0 AND (m.metric_value IS NULL OR (s.value > m.metric_value AND m.carried = 0))
), upserted AS (
    INSERT INTO merchant_usage AS m (merchant_id, date, metric_type, metric_value, carried, created_at, updated_at)
    SELECT merchant_id, date, metric_type, value, 0, now(), now()
    FROM different
    ORDER BY merchant_id, date, metric_type
    ON CONFLICT (merchant_id, date, metric_type) DO UPDATE
        SET metric_value = EXCLUDED.metric_value, updated_at = greatest(now(), m.updated_at + interval '1 microsecond')
        WHERE EXCLUDED.metric_value > m.metric_value AND m.carried = 0
    RETURNING m.merchant_id, m.date, m.metric_type, m.metric_value, m.created_at = m.updated_at AS inserted
), written AS (
    SELECT d.merchant_id, d.date, d.metric_type, d.updated_at, d.metric_value, u.inserted, u.metric_value AS held, d.value
    FROM different d
    FULL JOIN upserted u
        ON u.merchant_id COLLATE "C" = d.merchant_id AND u.date = d.date AND u.metric_type COLLATE "C" = d.metric_type
    WHERE coalesce(u.inserted::int, -1) >= 0
), kept AS (
    INSERT INTO usage_hourly_history (merchant_id, date, metric_type, held_since, metric_value, correction)
    SELECT merchant_id, date, metric_type, updated_at, metric_value, false
    FROM written
    WHERE %(history)s AND NOT inserted AND updated_at > '-infinity' AND held <> metric_value
    ORDER BY merchant_id, date, metric_type
    ON CONFLICT DO NOTHING
)
SELECT date, count(*) FILTER (WHERE inserted), count(*) FILTER (WHERE NOT inserted)
FROM written
WHERE held = value
GROUP BY date;
