-- The leaves that were kept beside the seal of a version, in their order, with the place of a merchant on its page and what it had in
-- all (NULL on the others). The ids stay here: of a hundred thousand merchants they are most of the bytes.
-- Parameters: merchant_id, usage_date, version. Returns leaves, merchants (how many of them), place (from 1, or NULL), total.
SELECT leaves, cardinality(merchant_ids), place, totals[place]
FROM (
    SELECT page, leaves, merchant_ids, totals, array_position(merchant_ids, %(merchant_id)s::text) AS place
    FROM usage_seal_page
    WHERE usage_date = %(usage_date)s AND version = %(version)s
    OFFSET 0
) AS kept
ORDER BY page;
