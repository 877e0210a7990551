-- What is stored of a period, merchant by merchant, in the order of bytes: the same rows make the same file anywhere.
-- COLLATE "C", because a table of the application may have another order.
-- Parameters: from_date, to_date, merchant_ids (text[], NULL for all).
SELECT merchant_id, date, metric_type, metric_value, carried, created_at, updated_at
FROM merchant_usage
WHERE date BETWEEN %(from_date)s::date AND %(to_date)s::date
  AND (%(merchant_ids)s::text[] IS NULL OR merchant_id = ANY (%(merchant_ids)s::text[]))
ORDER BY merchant_id COLLATE "C", date, metric_type COLLATE "C";
