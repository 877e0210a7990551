-- Enter a run and date into the ledger, or start its row anew when the run is repeated.
-- Parameters: run_id, usage_date, run_type, merchant_ids (text[] or NULL), settled, started_at.
INSERT INTO usage_run (run_id, usage_date, run_type, merchant_ids, settled, started_at)
VALUES (%(run_id)s, %(usage_date)s, %(run_type)s, %(merchant_ids)s::text[], %(settled)s, %(started_at)s)
ON CONFLICT (run_id, usage_date) DO UPDATE
    SET run_type = EXCLUDED.run_type, merchant_ids = EXCLUDED.merchant_ids, settled = EXCLUDED.settled,
        started_at = EXCLUDED.started_at, finished_at = NULL, keys_scanned = 0, merchants = 0,
        rows_inserted = 0, rows_updated = 0, rows_unchanged = 0, dead_letters = 0, regressed = 0,
        redis_total = NULL, postgres_total = NULL, verdict = NULL, error = NULL;
