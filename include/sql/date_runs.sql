-- Runs and attempts of a date, the newest first, those after a certain one. Of a run of some merchants only how many they are.
-- Parameters: usage_date, after_run (text or NULL: from the newest on), after_attempt, limit (bigint).
SELECT r.run_id, r.attempt, r.run_type, r.requested_by, cardinality(r.merchant_ids) AS only_merchants, r.settled, r.started_at,
       r.finished_at, r.keys_scanned, r.merchants, r.rows_inserted, r.rows_updated, r.rows_unchanged, r.dead_letters, r.regressed,
       r.redis_total, r.postgres_total, r.verdict, r.error
FROM usage_run AS r
WHERE r.usage_date = %(usage_date)s
  AND (%(after_run)s::text IS NULL OR (r.started_at, r.run_id, r.attempt) < (
      SELECT a.started_at, a.run_id, a.attempt
      FROM usage_run AS a
      WHERE a.run_id = %(after_run)s AND a.attempt = %(after_attempt)s AND a.usage_date = %(usage_date)s
  ))
ORDER BY r.started_at DESC, r.run_id DESC, r.attempt DESC
LIMIT %(limit)s;
