-- What the ledger has of one run, by date. Parameters: run_id.
SELECT usage_date, run_id, run_type, merchant_ids, settled, started_at, finished_at, keys_scanned, merchants,
       rows_inserted, rows_updated, rows_unchanged, dead_letters, regressed, redis_total, postgres_total, verdict, error
FROM usage_run
WHERE run_id = %(run_id)s
ORDER BY usage_date;
