-- The seals of a date, the newest version first. Parameters: usage_date, limit (bigint).
SELECT seal_number, version, sealed_at, run_id, counters, total, root, reason, signature IS NOT NULL AS signed
FROM usage_seal
WHERE usage_date = %(usage_date)s
ORDER BY version DESC
LIMIT %(limit)s;
