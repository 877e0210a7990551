-- Dates older than what Redis keeps whose end no run has come to a verdict about: an outage, or a restored backup, took them.
-- Parameters: from_date, to_date.
SELECT day::date
FROM generate_series(%(from_date)s::timestamp, %(to_date)s::timestamp, '1 day') AS day
WHERE NOT EXISTS (
    SELECT FROM usage_run AS r
    WHERE r.usage_date = day::date AND r.merchant_ids IS NULL AND r.settled AND r.verdict IS NOT NULL
)
ORDER BY day;
