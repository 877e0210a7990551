-- Note the merchants whose total is another in a version of a date than in the one before, from the leaves beside both seals. Only pages
-- that differ are taken apart: a merchant of a page that is the same in both has not changed, wherever the others have moved.
-- Parameters: usage_date, version.
INSERT INTO usage_correction (merchant_id, usage_date, version, total_before, total_after)
SELECT merchant_id, %(usage_date)s, %(version)s, total_before, total_after
FROM (
    SELECT held.merchant_id,
           coalesce(sum(held.total) FILTER (WHERE p.version < %(version)s), 0) AS total_before,
           coalesce(sum(held.total) FILTER (WHERE p.version = %(version)s), 0) AS total_after
    FROM usage_seal_page AS p
    CROSS JOIN LATERAL unnest(p.merchant_ids, p.totals) AS held (merchant_id, total)
    WHERE p.usage_date = %(usage_date)s AND p.version IN (%(version)s - 1, %(version)s)
      AND NOT EXISTS (
          SELECT FROM usage_seal_page AS other
          WHERE other.usage_date = p.usage_date AND other.page = p.page
            AND other.version = %(version)s * 2 - 1 - p.version AND other.leaves = p.leaves
      )
    GROUP BY held.merchant_id
) AS changed
WHERE total_after <> total_before;
