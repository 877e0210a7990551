-- A row whose value, or what is carried, is NULL: which column it is. Asked only where one allows it: it reads the table until it
-- finds one.
SELECT CASE WHEN metric_value IS NULL THEN 'metric_value' ELSE 'carried' END
FROM merchant_usage
WHERE metric_value IS NULL OR carried IS NULL
LIMIT 1;
