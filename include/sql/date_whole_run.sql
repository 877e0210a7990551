-- The newest run of a date over all merchants that came to a verdict: what it found stands for the date. Parameters: usage_date.
SELECT r.run_id, r.attempt, r.run_type, r.requested_by, cardinality(r.merchant_ids) AS only_merchants, r.settled, r.started_at,
       r.finished_at, r.keys_scanned, r.merchants, r.rows_inserted, r.rows_updated, r.rows_unchanged, r.dead_letters, r.regressed,
       r.redis_total, r.postgres_total, r.verdict, r.error
FROM usage_run AS r
WHERE r.usage_date = %(usage_date)s AND r.merchant_ids IS NULL AND r.verdict IS NOT NULL
ORDER BY r.started_at DESC, r.run_id DESC, r.attempt DESC
LIMIT 1;
