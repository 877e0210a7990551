-- The leaves that were kept beside the seal of a version, in their order. Parameters: usage_date, version.
SELECT page, merchant_ids, totals, leaves
FROM usage_seal_page
WHERE usage_date = %(usage_date)s AND version = %(version)s
ORDER BY page;
