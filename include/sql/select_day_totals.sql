-- The same as select_totals, of whole days alone: where no merchants are named PostgreSQL before 18 would lock the partitions of all
-- months to look for those of none. Parameters: dates (date[]).
SELECT date, count(*), coalesce(sum(metric_value), 0), coalesce(sum(metric_value - carried), 0),
       count(*) FILTER (WHERE carried <> 0)
FROM merchant_usage
WHERE date = ANY (%(dates)s::date[])
GROUP BY date;
