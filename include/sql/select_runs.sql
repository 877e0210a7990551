-- The ledger of some dates, newest first. Parameters: from_date, to_date.
SELECT usage_date, run_id, attempt, run_type, requested_by, merchant_ids, settled, started_at, finished_at, keys_scanned, merchants,
       rows_inserted, rows_updated, rows_unchanged, dead_letters, regressed, redis_total, postgres_total, verdict, error
FROM usage_run
WHERE usage_date BETWEEN %(from_date)s AND %(to_date)s
ORDER BY usage_date DESC, started_at DESC, attempt DESC;
