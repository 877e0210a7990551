-- What changed of a merchant's dates after they were sealed, over all of its metrics, the newest first. Texts stand in the order of
-- their bytes in usage_correction. Parameters: merchant_id, from_date, to_date, limit.
SELECT usage_date, version, corrected_at, reason, before, after, difference
FROM merchant_usage_corrections
WHERE merchant_id = %(merchant_id)s AND usage_date BETWEEN %(from_date)s::date AND %(to_date)s::date
ORDER BY usage_date DESC, version DESC
LIMIT %(limit)s::bigint;
