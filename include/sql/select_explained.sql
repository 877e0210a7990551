-- What happened to a merchant's counters of a date, in that order; with a metric only to that, and to the whole date.
-- Parameters: merchant_id, date, metric_type (text or NULL), first (how many to pass over: all are sorted in any case, and later events
-- come last), limit (NULL: all).
SELECT happened_at, kind, metric_type, by_whom, value_before, value_after, told
FROM usage_explained
WHERE merchant_id = %(merchant_id)s AND date = %(date)s
  AND (%(metric_type)s::text IS NULL OR metric_type IS NULL OR metric_type = %(metric_type)s)
ORDER BY happened_at, kind, metric_type, told
LIMIT %(limit)s::bigint OFFSET %(first)s::bigint;
