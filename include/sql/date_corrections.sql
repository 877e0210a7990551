-- What merchants' totals of a date were before it was sealed anew, and after, the newest version first, and in it the largest
-- corrections. Parameters: usage_date, limit (bigint).
SELECT merchant_id, version, before, after, difference
FROM merchant_usage_corrections
WHERE usage_date = %(usage_date)s
ORDER BY version DESC, abs(difference) DESC, merchant_id
LIMIT %(limit)s;
