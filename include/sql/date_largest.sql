-- The merchants with the most usage of a date, from the leaves that were kept beside its seal: merchant_usage has them by merchant,
-- and would be read whole for this. Parameters: usage_date, version, limit (bigint).
SELECT held.merchant_id, held.total
FROM usage_seal_page AS p
CROSS JOIN LATERAL unnest(p.merchant_ids, p.totals) AS held (merchant_id, total)
WHERE p.usage_date = %(usage_date)s AND p.version = %(version)s
ORDER BY held.total DESC, held.merchant_id
LIMIT %(limit)s;
