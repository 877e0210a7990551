-- The sums of each date of a period that has rows. Added up here, so that they are not those of the file they are compared with.
-- Parameters: from_date, to_date, merchant_ids (text[], NULL for all).
SELECT date, count(DISTINCT merchant_id), count(*), sum(metric_value)
FROM merchant_usage
WHERE date BETWEEN %(from_date)s::date AND %(to_date)s::date
  AND (%(merchant_ids)s::text[] IS NULL OR merchant_id = ANY (%(merchant_ids)s::text[]))
GROUP BY date
ORDER BY date;
