-- A day of usage, in the order in which a run stores it. Parameters: date, merchants, metrics.
INSERT INTO merchant_usage (merchant_id, date, metric_type, metric_value, carried, created_at, updated_at)
SELECT 'merchant_' || lpad(m::text, 6, '0'), %(date)s, 'metric_' || k,
       (hashint4(m * 31 + k) & 4095) * (10 + (hashint4(m + (%(date)s::date - '2026-01-01'::date)) & 7)), 0,
       %(date)s::date::timestamptz + interval '1 hour 20 seconds',
       least(%(date)s::date::timestamptz + interval '1 day 20 seconds', now())
FROM generate_series(0, %(merchants)s - 1) AS m, generate_series(0, %(metrics)s - 1) AS k
ORDER BY m, k;
