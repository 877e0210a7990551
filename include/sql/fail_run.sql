-- The attempt came to no verdict. Parameters: run_id, attempt, finished_at, error.
UPDATE usage_run
SET finished_at = %(finished_at)s, error = %(error)s
WHERE run_id = %(run_id)s AND attempt = %(attempt)s AND verdict IS NULL;
