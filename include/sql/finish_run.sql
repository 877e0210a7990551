-- Write the end of an attempt and date. Parameters: run_id, attempt, usage_date, finished_at, settled, complete, rows_inserted,
-- rows_updated, rows_unchanged, dead_letters, regressed, redis_total, postgres_total, verdict, error.
UPDATE usage_run
SET finished_at = %(finished_at)s, settled = %(settled)s, complete = %(complete)s, rows_inserted = %(rows_inserted)s,
    rows_updated = %(rows_updated)s, rows_unchanged = %(rows_unchanged)s, dead_letters = %(dead_letters)s,
    regressed = %(regressed)s, redis_total = %(redis_total)s, postgres_total = %(postgres_total)s, verdict = %(verdict)s,
    error = %(error)s
WHERE run_id = %(run_id)s AND attempt = %(attempt)s AND usage_date = %(usage_date)s;
