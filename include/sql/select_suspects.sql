-- After the writes: what differed and is still not stored as it was read. Those counters are read again with their row locked:
-- lower than stored (a parallel run was later, or the counter went backwards), or with something carried (see
-- upsert_differences). Parameters as in find_differences. The subtraction cannot overflow, a sum could.
SELECT d.merchant_id, d.date, d.metric_type
FROM pg_temp.usage_difference d
JOIN (
    SELECT merchant_id, date, metric_type, metric_value, carried
    FROM merchant_usage
    WHERE date = ANY (%(dates)s::date[])
      AND merchant_id >= %(first)s::text COLLATE "C" AND merchant_id <= %(last)s::text COLLATE "C"
) AS m USING (merchant_id, date, metric_type)
WHERE d.value <> m.metric_value - m.carried
ORDER BY d.merchant_id, d.date, d.metric_type;
