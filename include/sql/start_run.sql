-- Enter an attempt of a run and one of its dates into the ledger. A scan of a run id is a new attempt, so nothing is overwritten.
-- Parameters: run_id, attempt, usage_date, run_type, merchant_ids (text[] or NULL), settled, started_at, requested_by (or NULL),
-- key_prefix, timezone, settle_hours, retention_days.
INSERT INTO usage_run (run_id, attempt, usage_date, run_type, merchant_ids, settled, started_at, requested_by,
                       key_prefix, timezone, settle_hours, retention_days)
VALUES (%(run_id)s, %(attempt)s, %(usage_date)s, %(run_type)s, %(merchant_ids)s::text[], %(settled)s, %(started_at)s,
        %(requested_by)s, %(key_prefix)s, %(timezone)s, %(settle_hours)s, %(retention_days)s)
ON CONFLICT (run_id, attempt, usage_date) DO NOTHING;
