-- The newest date of which anything is stored of each of some merchants; who has nothing is left out. A step in the primary key each.
-- Parameters: merchant_ids (text[]).
SELECT asked.merchant_id, newest.date
FROM unnest(%(merchant_ids)s::text[]) AS asked (merchant_id)
CROSS JOIN LATERAL (
    SELECT m.date FROM merchant_usage AS m WHERE m.merchant_id = asked.merchant_id ORDER BY m.merchant_id, m.date DESC LIMIT 1
) AS newest;
