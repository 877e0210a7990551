-- What some merchants used on a date, and on another one, over all of their metrics; NULL: nothing is stored. Each is a look at
-- the primary key. Parameters: merchant_ids (text[]), usage_date, other_date.
SELECT m.merchant_id, u.used, u.used_before
FROM unnest(%(merchant_ids)s::text[]) AS m (merchant_id)
CROSS JOIN LATERAL (
    SELECT sum(metric_value) FILTER (WHERE date = %(usage_date)s::date) AS used,
           sum(metric_value) FILTER (WHERE date = %(other_date)s::date) AS used_before
    FROM merchant_usage
    WHERE merchant_id = m.merchant_id AND date = ANY (ARRAY[%(usage_date)s::date, %(other_date)s::date])
) AS u;
