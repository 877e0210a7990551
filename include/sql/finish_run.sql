-- Write the end of a run and date. Parameters: run_id, usage_date, finished_at, rows_inserted, rows_updated,
-- rows_unchanged, dead_letters, regressed, redis_total, postgres_total, verdict, error.
UPDATE usage_run
SET finished_at = %(finished_at)s, rows_inserted = %(rows_inserted)s, rows_updated = %(rows_updated)s,
    rows_unchanged = %(rows_unchanged)s, dead_letters = %(dead_letters)s, regressed = %(regressed)s,
    redis_total = %(redis_total)s, postgres_total = %(postgres_total)s, verdict = %(verdict)s, error = %(error)s
WHERE run_id = %(run_id)s AND usage_date = %(usage_date)s;
