-- Put into usage_difference what the table does not hold as it was read: rows that are new, and rows that differ.
-- Usually they are few, and all statements after this one look only at them. Unchanged rows are read, and neither
-- locked nor written: ON CONFLICT ... WHERE would do both.
-- The range of merchants and the dates are said besides the join, so that only that part of the table is read: a batch
-- is a run of neighbours. The subtraction cannot overflow, a sum could.
-- Parameters: dates (date[]), first and last (text, the range of merchants). Changes as many rows as differ.
INSERT INTO pg_temp.usage_difference (merchant_id, date, metric_type, value, is_new)
SELECT s.merchant_id, s.date, s.metric_type, s.value, m.metric_value IS NULL
FROM pg_temp.usage_staged s
LEFT JOIN (
    SELECT merchant_id, date, metric_type, metric_value, carried
    FROM merchant_usage
    WHERE date = ANY (%(dates)s::date[])
      AND merchant_id >= %(first)s::text COLLATE "C" AND merchant_id <= %(last)s::text COLLATE "C"
) AS m USING (merchant_id, date, metric_type)
WHERE m.metric_value IS NULL OR s.value <> m.metric_value - m.carried;
