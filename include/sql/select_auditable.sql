-- The dates of a range that have a seal, or that whole runs came to a verdict about once they were over and settled: those that had
-- usage. Parameters: from_date, to_date.
SELECT usage_date FROM usage_seal WHERE usage_date BETWEEN %(from_date)s AND %(to_date)s
UNION
SELECT usage_date
FROM usage_run
WHERE usage_date BETWEEN %(from_date)s AND %(to_date)s AND merchant_ids IS NULL AND settled
  AND verdict IS NOT NULL AND verdict <> 'empty'
ORDER BY usage_date;
