-- Of each of some dates: its newest run, and the newest over all merchants that came to a verdict, whose totals stand for the date.
-- Each is the end of a small piece of an index, however many runs a date has. Parameters: dates (date[]).
SELECT d.usage_date, newest.run_id, newest.started_at, newest.verdict, newest.error,
       whole.run_id, whole.started_at, whole.settled, whole.verdict, whole.redis_total, whole.postgres_total
FROM unnest(%(dates)s::date[]) AS d (usage_date)
CROSS JOIN LATERAL (
    SELECT r.run_id, r.started_at, r.verdict, r.error
    FROM usage_run AS r
    WHERE r.usage_date = d.usage_date
    ORDER BY r.started_at DESC, r.run_id DESC, r.attempt DESC
    LIMIT 1
) AS newest
LEFT JOIN LATERAL (
    SELECT r.run_id, r.started_at, r.settled, r.verdict, r.redis_total, r.postgres_total
    FROM usage_run AS r
    WHERE r.usage_date = d.usage_date AND r.merchant_ids IS NULL AND r.verdict IS NOT NULL
    ORDER BY r.started_at DESC, r.run_id DESC, r.attempt DESC
    LIMIT 1
) AS whole ON true
ORDER BY d.usage_date;
