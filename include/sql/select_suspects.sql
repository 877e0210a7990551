-- After the writes: what is still not stored as it was read. Those counters are read again with their row locked: lower
-- than stored (a parallel run was later, or the counter went backwards), or with something carried (see upsert_staged).
-- Parameters, and why a full join, as in count_differences. The subtraction cannot overflow, a sum could.
SELECT s.merchant_id, s.date, s.metric_type
FROM pg_temp.usage_staged s
FULL JOIN (
    SELECT merchant_id, date, metric_type, metric_value, carried
    FROM merchant_usage
    WHERE date = ANY (%(dates)s::date[])
      AND merchant_id >= %(first)s::text COLLATE "C" AND merchant_id <= %(last)s::text COLLATE "C"
) AS m ON m.merchant_id = s.merchant_id COLLATE "C" AND m.date = s.date AND m.metric_type = s.metric_type COLLATE "C"
WHERE coalesce(s.value <> m.metric_value - m.carried, false)
ORDER BY s.merchant_id, s.date, s.metric_type;
