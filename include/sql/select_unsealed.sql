-- Dates that whole runs verified once they were over and settled and that have no seal, the newest first.
-- Parameters: from_date (date), limit (bigint).
SELECT DISTINCT usage_date
FROM usage_run AS r
WHERE usage_date >= %(from_date)s AND merchant_ids IS NULL AND settled AND verdict = 'verified'
  AND NOT EXISTS (SELECT FROM usage_seal AS s WHERE s.usage_date = r.usage_date)
ORDER BY usage_date DESC
LIMIT %(limit)s;
