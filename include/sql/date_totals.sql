-- What each merchant had of a date in all, as its newest seal has it, in the order in which they were sealed.
-- Parameters: usage_date, limit (bigint).
SELECT held.merchant_id, held.total, p.version
FROM usage_seal_page AS p
CROSS JOIN LATERAL unnest(p.merchant_ids, p.totals) WITH ORDINALITY AS held (merchant_id, total, n)
WHERE p.usage_date = %(usage_date)s AND p.version = (SELECT max(version) FROM usage_seal WHERE usage_date = %(usage_date)s)
ORDER BY p.page, held.n
LIMIT %(limit)s;
