-- The attempt is verified: its readings have done their work. Parameters: run_id, attempt.
DELETE FROM usage_reading WHERE run_id = %(run_id)s AND attempt <= %(attempt)s;
