-- Keys of some dates that are noted as gone. Parameters: dates (date[]).
SELECT merchant_id, date, metric_type
FROM usage_absence
WHERE date = ANY (%(dates)s::date[])
ORDER BY date, merchant_id, metric_type;
