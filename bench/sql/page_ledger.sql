-- All besides usage itself. Parameters: merchants, metrics, days (with usage), last (date), now, ledger (dates in it),
-- undecided (int[]: days before the last one on which counters wait), history (days of it), with_history (one merchant in so many).

-- What each counter held after each hour: a 24th more.
INSERT INTO usage_hourly_history (held_since, metric_value, date, correction, merchant_id, metric_type)
SELECT date::timestamptz + h * interval '1 hour' + interval '20 seconds', metric_value * h / 24, date, false, merchant_id, metric_type
FROM (
    SELECT date, merchant_id, metric_type, metric_value
    FROM merchant_usage
    WHERE date > %(last)s::date - %(history)s AND substr(merchant_id, length('merchant_') + 1)::integer %% %(with_history)s = 0
) AS used, generate_series(1, 23) AS h
WHERE date::timestamptz + h * interval '1 hour' < %(now)s
ORDER BY date, merchant_id, metric_type, h;

CREATE TEMPORARY TABLE total AS
SELECT date, count(*) AS counters, sum(metric_value) AS value FROM merchant_usage GROUP BY date;

-- The runs of each hour of a day, one when it is settled, and the first one of each of the next seven days.
INSERT INTO usage_run (
    run_id, usage_date, run_type, settled, started_at, finished_at, keys_scanned, merchants, rows_inserted, rows_updated,
    rows_unchanged, regressed, redis_total, postgres_total, verdict, complete, key_prefix, timezone, settle_hours, retention_days
)
SELECT 'scheduled__' || to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"+00:00"'), date, 'scheduled', settled,
       started_at, started_at + interval '41 seconds', counters, %(merchants)s,
       CASE WHEN h = 1 THEN counters ELSE 0 END,
       CASE WHEN h BETWEEN 2 AND 24 THEN counters ELSE 0 END,
       CASE WHEN settled THEN counters ELSE 0 END,
       CASE WHEN settled AND waits THEN 100 ELSE 0 END,
       value, value, CASE WHEN settled AND waits THEN 'mismatch' ELSE 'verified' END, settled, 'usage', 'UTC', 2, 7
FROM (
    SELECT day.date, h, h > 24 AS settled,
           day.date::timestamptz + interval '20 seconds' + CASE
               WHEN h < 25 THEN h * interval '1 hour'
               WHEN h = 25 THEN interval '26 hours'
               ELSE (h - 24) * interval '1 day' + interval '1 hour'
           END AS started_at,
           coalesce(total.counters, %(merchants)s * %(metrics)s) AS counters,
           coalesce(total.value, %(merchants)s * 100000::bigint) AS value,
           %(last)s::date - day.date = ANY (%(undecided)s::integer[]) AS waits
    FROM (SELECT %(last)s::date - n AS date FROM generate_series(0, %(ledger)s - 1) AS n) AS day
    LEFT JOIN total USING (date)
    CROSS JOIN generate_series(1, 32) AS h
) AS run
WHERE started_at < %(now)s
ORDER BY started_at, date;

-- Of days without usage. The others are sealed by the engine.
INSERT INTO usage_seal (seal_number, usage_date, version, sealed_at, run_id, counters, total, root, chain, reason)
SELECT row_number() OVER (ORDER BY date, version), date, version, date::timestamptz + version * interval '1 day 3 hours',
       'scheduled__made-up', %(merchants)s * %(metrics)s, %(merchants)s * 100000::bigint, sha256(date::text::bytea),
       sha256(date::text::bytea), CASE version WHEN 1 THEN 'first' ELSE 'late' END
FROM (SELECT %(last)s::date - n AS date, n FROM generate_series(%(days)s, %(ledger)s - 1) AS n) AS day,
     generate_series(1, 2) AS version
WHERE version = 1 OR n %% 10 = 0;

INSERT INTO usage_correction (merchant_id, usage_date, version, total_before, total_after)
SELECT 'merchant_' || lpad((n * 37 %% %(merchants)s)::text, 6, '0'), usage_date, version, 1000, 1000 + n
FROM usage_seal, generate_series(1, 50) AS n
WHERE version = 2
ON CONFLICT DO NOTHING;

INSERT INTO usage_dead_letter (redis_key, reason, detail, usage_date, first_seen_at, last_seen_at, resolved_at)
SELECT convert_to(format('usage:merchant_%%s:%%s:half_%%s', lpad((n * 7919 %% %(merchants)s)::text, 6, '0'), date, n), 'UTF8'),
       (ARRAY['not_an_integer', 'negative', 'out_of_range', 'wrong_type', 'too_late'])[1 + n %% 5], 'the value is ''12.5''', date,
       date::timestamptz + interval '10 hours', date::timestamptz + interval '20 hours',
       CASE WHEN n %% 40 > 0 THEN date::timestamptz + interval '21 hours' END
FROM (SELECT n, %(last)s::date - n %% %(ledger)s AS date FROM generate_series(1, 20000) AS n) AS letter;

INSERT INTO usage_dead_letter (
    redis_key, reason, detail, usage_date, first_seen_at, last_seen_at, redis_value, postgres_value
)
SELECT convert_to(format('usage:%%s:%%s:%%s', merchant_id, date, metric_type), 'UTF8'), 'counter_regressed',
       format('Redis has 7, PostgreSQL has %%s', metric_value), date, date::timestamptz + interval '19 hours', %(now)s, 7, metric_value
FROM merchant_usage
WHERE %(last)s::date - date = ANY (%(undecided)s::integer[]) AND merchant_id < 'merchant_000010';

INSERT INTO usage_decision (redis_key, usage_date, decision, decided_by, decided_at, reason, value_before, value_after)
SELECT convert_to(format('usage:merchant_%%s:%%s:metric_%%s', lpad((n * 7919 %% %(merchants)s)::text, 6, '0'), date, n %% 10), 'UTF8'),
       date, (ARRAY['keep', 'accept', 'carry'])[1 + n %% 3], 'anna', date::timestamptz + interval '1 day 9 hours', 'agreed with them',
       1000, 900
FROM (SELECT n, %(last)s::date - 9 - n %% (%(ledger)s - 9) AS date FROM generate_series(1, 1000) AS n) AS decided;

INSERT INTO usage_alert (alert_key, kind, run_id, raised_at, told, resolved_at)
SELECT 'late:' || n, 'late', 'run ' || n, %(now)s::timestamptz - n * interval '1 day', true,
       %(now)s::timestamptz - n * interval '1 day' + interval '1 hour'
FROM generate_series(1, %(ledger)s) AS n;
