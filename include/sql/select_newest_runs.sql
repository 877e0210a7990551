-- The newest run of each of some dates, newest date first; and if that was for some merchants only, which says nothing of the
-- others, the newest over all of them, too. `verified_at` is when the date was last verified for all merchants: a later run of
-- a few merchants, or one that failed, does not undo that. Parameters: from_date, to_date.
SELECT usage_date, run_id, attempt, run_type, requested_by, merchant_ids, settled, started_at, finished_at, keys_scanned, merchants,
       rows_inserted, rows_updated, rows_unchanged, dead_letters, regressed, redis_total, postgres_total, verdict, error,
       verified_at
FROM (
    SELECT *,
           max(finished_at) FILTER (WHERE verdict = 'verified' AND merchant_ids IS NULL)
               OVER (PARTITION BY usage_date) AS verified_at,
           row_number() OVER (PARTITION BY usage_date ORDER BY started_at DESC, run_id DESC, attempt DESC) AS place,
           row_number() OVER (
               PARTITION BY usage_date, merchant_ids IS NULL ORDER BY started_at DESC, run_id DESC, attempt DESC
           ) AS place_among_alike
    FROM usage_run
    WHERE usage_date BETWEEN %(from_date)s AND %(to_date)s
) AS run
WHERE place = 1 OR (merchant_ids IS NULL AND place_among_alike = 1)
ORDER BY usage_date DESC, started_at DESC, run_id DESC;
