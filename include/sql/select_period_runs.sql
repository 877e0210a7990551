-- The ledger of a period in the order in which it happened. Whom a run of some merchants was for is told by their number: who reads it
-- may be one of them. Parameters: from_date, to_date, merchant_ids (text[], NULL for all: else runs of others only are left out).
SELECT usage_date, run_id, attempt, run_type, requested_by, cardinality(merchant_ids) AS for_merchants, settled, complete, started_at,
       finished_at, keys_scanned, merchants, rows_inserted, rows_updated, rows_unchanged, dead_letters, regressed, redis_total,
       postgres_total, verdict, error, key_prefix, timezone
FROM usage_run
WHERE usage_date BETWEEN %(from_date)s AND %(to_date)s
  AND (%(merchant_ids)s::text[] IS NULL OR merchant_ids IS NULL OR merchant_ids && %(merchant_ids)s::text[])
ORDER BY usage_date, started_at, run_id COLLATE "C", attempt;
