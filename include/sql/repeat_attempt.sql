-- A verification that is repeated alone: what its scan found, as an attempt of its own, so that the verdict before it stays.
-- Parameters: run_id, attempt (the one that has a verdict), next_attempt.
INSERT INTO usage_run (run_id, attempt, usage_date, run_type, merchant_ids, settled, started_at, keys_scanned, merchants,
                       dead_letters, requested_by, key_prefix, timezone, settle_hours, retention_days)
SELECT run_id, %(next_attempt)s, usage_date, run_type, merchant_ids, settled, started_at, keys_scanned, merchants,
       dead_letters, requested_by, key_prefix, timezone, settle_hours, retention_days
FROM usage_run
WHERE run_id = %(run_id)s AND attempt = %(attempt)s;
