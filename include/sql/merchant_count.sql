-- How many rows merchant_days would return, `limit` at most. Parameters: merchant_id, from_date, to_date, metric_type, limit.
SELECT count(*)
FROM (
    SELECT
    FROM merchant_usage
    WHERE merchant_id = %(merchant_id)s AND date BETWEEN %(from_date)s::date AND %(to_date)s::date
      AND (%(metric_type)s::text IS NULL OR metric_type = %(metric_type)s::text)
    LIMIT %(limit)s::bigint
) AS counted;
