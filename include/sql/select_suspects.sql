-- After the writes: what is still not stored as it was read. Those counters are read again with their row locked: lower
-- than stored (a parallel run was later, or the counter went backwards), or with something carried (see upsert_staged).
-- Parameters as in count_differences. The subtraction cannot overflow, a sum could.
SELECT s.merchant_id, s.date, s.metric_type
FROM pg_temp.usage_staged s
JOIN (
    SELECT merchant_id, date, metric_type, metric_value, carried
    FROM merchant_usage
    WHERE date = ANY (%(dates)s::date[])
      AND merchant_id >= %(first)s::text COLLATE "C" AND merchant_id <= %(last)s::text COLLATE "C"
) AS m USING (merchant_id, date, metric_type)
WHERE s.value <> m.metric_value - m.carried
ORDER BY s.merchant_id, s.date, s.metric_type;
