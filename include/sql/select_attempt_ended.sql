-- Whether an attempt has a verdict already. Parameters: run_id, attempt.
SELECT coalesce(bool_or(verdict IS NOT NULL), false) FROM usage_run WHERE run_id = %(run_id)s AND attempt = %(attempt)s;
