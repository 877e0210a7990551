-- Merchants whose ids begin with a text, taken as it is: from one to the next by the primary key, a step a merchant, however many rows
-- each has. Where ids stand in the order of their bytes the steps begin there and end with the first that begins otherwise; else all
-- are passed, `looks` of them at most, and the caller goes on from the last.
-- Parameters: begins, after (only ids beyond it, in the order of the key), in_bytes (see merchants_order), found and looks (how many
-- merchants are enough). Returns merchant_id, matches, looked (its number): those that match, and the last that was looked at.
WITH RECURSIVE walk AS (
    (SELECT m.merchant_id, starts_with(m.merchant_id, %(begins)s::text) AS matches, 1 AS looked,
            starts_with(m.merchant_id, %(begins)s::text)::integer AS found
     FROM merchant_usage AS m
     WHERE m.merchant_id > %(after)s::text
     ORDER BY m.merchant_id
     LIMIT 1)
    UNION ALL
    SELECT next.merchant_id, next.matches, walk.looked + 1, walk.found + next.matches::integer
    FROM walk
    CROSS JOIN LATERAL (
        SELECT m.merchant_id, starts_with(m.merchant_id, %(begins)s::text) AS matches
        FROM merchant_usage AS m
        WHERE m.merchant_id > walk.merchant_id
        ORDER BY m.merchant_id
        LIMIT 1
    ) AS next
    WHERE walk.found < %(found)s::integer AND walk.looked < %(looks)s::integer AND (walk.matches OR NOT %(in_bytes)s::boolean)
)
SELECT merchant_id, matches, looked
FROM walk
WHERE matches OR looked = (SELECT max(looked) FROM walk)
ORDER BY looked;
