-- How many counters an attempt's readings cover. A task that was taken for dead may have kept a page twice.
-- Parameters: run_id, attempt.
SELECT coalesce(sum(number), 0)::bigint
FROM (
    SELECT batch, page, max(number) AS number
    FROM usage_reading
    WHERE run_id = %(run_id)s AND attempt = %(attempt)s
    GROUP BY batch, page
) AS covered;
