-- What the ledger has of the newest attempt of a run, by date. Parameters: run_id.
SELECT usage_date, run_id, attempt, run_type, requested_by, merchant_ids, settled, started_at, finished_at, keys_scanned, merchants,
       rows_inserted, rows_updated, rows_unchanged, dead_letters, regressed, redis_total, postgres_total, verdict, error
FROM usage_run
WHERE run_id = %(run_id)s AND attempt = (SELECT max(attempt) FROM usage_run WHERE run_id = %(run_id)s)
ORDER BY usage_date;
