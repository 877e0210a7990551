-- How many rows there are of some days, and their sum. Parameters: dates (date[]).
SELECT date, count(*), coalesce(sum(metric_value), 0)
FROM merchant_usage
WHERE date = ANY (%(dates)s::date[])
GROUP BY date;
