-- What happened to the counters of a period, merchant by merchant, in the order of bytes. What happened to whole dates is the same for
-- each merchant, and is asked for once: see select_period_runs and its like. A correction is a merchant's own, of all metrics too.
-- Parameters: from_date, to_date, merchant_ids (text[], NULL for all).
SELECT merchant_id, date, happened_at, kind, metric_type, by_whom, value_before, value_after, told
FROM usage_explained
WHERE date BETWEEN %(from_date)s::date AND %(to_date)s::date 
  AND (metric_type IS NOT NULL OR kind = 'correction')
  AND (%(merchant_ids)s::text[] IS NULL OR merchant_id = ANY (%(merchant_ids)s::text[]))
ORDER BY merchant_id COLLATE "C", date, happened_at, kind COLLATE "C", metric_type COLLATE "C", told COLLATE "C";
