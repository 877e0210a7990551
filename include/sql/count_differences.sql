-- How many staged counters of each date have no row, and how many another one. Usually none, and then nothing else is done: unchanged
-- rows are read, and neither locked nor written, as ON CONFLICT ... WHERE would do.
-- The range of merchants and the dates are said besides the join, so that only that part of the table is read: a batch
-- is a run of neighbours. The subtraction cannot overflow, a sum could.
-- Parameters: dates (date[]), first and last (text, the range of merchants).
-- Returns, for each date: counters without a row, counters whose row holds something else.
SELECT s.date,
       count(*) FILTER (WHERE m.metric_value IS NULL),
       count(*) FILTER (WHERE s.value <> m.metric_value - m.carried)
FROM pg_temp.usage_staged s
LEFT JOIN (
    SELECT merchant_id, date, metric_type, metric_value, carried
    FROM merchant_usage
    WHERE date = ANY (%(dates)s::date[])
      AND merchant_id >= %(first)s::text COLLATE "C" AND merchant_id <= %(last)s::text COLLATE "C"
) AS m USING (merchant_id, date, metric_type)
GROUP BY s.date;
