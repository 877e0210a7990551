-- Of some dates without any usage, those whose day before had some; of a date that is not over, by the same time of day.
-- Parameters: dates (date[]), over (boolean[]), of equal length; now.
SELECT day
FROM unnest(%(dates)s::date[], %(over)s::boolean[]) AS d (day, over)
WHERE EXISTS (
    SELECT FROM merchant_usage WHERE date = day - 1 AND (over OR created_at <= %(now)s - interval '1 day')
)
ORDER BY day;
