-- When the first run in the ledger began, apart from the attempt that asks. Parameters: run_id, attempt.
SELECT min(started_at) FROM usage_run WHERE (run_id, attempt) <> (%(run_id)s::text, %(attempt)s::integer);
