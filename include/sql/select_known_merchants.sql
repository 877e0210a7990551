-- Those of some merchants of whom there is any row. A range of the primary key each.
-- Parameters: merchant_ids (text[]).
SELECT asked.merchant_id
FROM unnest(%(merchant_ids)s::text[]) AS asked (merchant_id)
WHERE EXISTS (SELECT FROM merchant_usage AS m WHERE m.merchant_id = asked.merchant_id);
