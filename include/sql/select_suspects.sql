-- Counters read lower than stored: a parallel run was later, or the counter went backwards.
SELECT s.merchant_id, s.date, s.metric_type
FROM pg_temp.usage_staged s
JOIN merchant_usage m USING (merchant_id, date, metric_type)
WHERE s.value < m.metric_value - m.carried
ORDER BY s.merchant_id, s.date, s.metric_type;
