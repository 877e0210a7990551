-- The merchants with the most usage of a date, from the leaves that were kept beside its seal: merchant_usage has them by merchant,
-- and would be read whole for this. Taken apart in the list of columns: a function among the tables would first write down all that
-- it gives, which takes as long again. Parameters: usage_date, version, limit (bigint).
SELECT merchant_id, total
FROM (
    SELECT unnest(merchant_ids) AS merchant_id, unnest(totals) AS total
    FROM usage_seal_page
    WHERE usage_date = %(usage_date)s AND version = %(version)s
) AS held
ORDER BY total DESC, merchant_id COLLATE "C"
LIMIT %(limit)s;
