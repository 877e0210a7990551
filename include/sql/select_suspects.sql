-- Counters to be read again with their row locked: lower than stored (a parallel run was later, or the counter went
-- backwards), or with something carried (see upsert_staged). The subtraction cannot overflow, a sum could.
-- Parameters: dates (date[]), those that are staged.
SELECT s.merchant_id, s.date, s.metric_type
FROM pg_temp.usage_staged s
JOIN merchant_usage m USING (merchant_id, date, metric_type)
WHERE m.date = ANY (%(dates)s::date[])
  AND (s.value < m.metric_value - m.carried
       OR (m.carried <> 0 AND s.value <> m.metric_value - m.carried))
ORDER BY s.merchant_id, s.date, s.metric_type;
