-- What the scan found. Parameters: run_id, attempt, usage_date, keys_scanned, merchants, dead_letters.
UPDATE usage_run
SET keys_scanned = %(keys_scanned)s, merchants = %(merchants)s, dead_letters = %(dead_letters)s
WHERE run_id = %(run_id)s AND attempt = %(attempt)s AND usage_date = %(usage_date)s;
