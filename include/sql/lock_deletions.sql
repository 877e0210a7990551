-- Take over what was written down to be deleted, but for what another process has in its hands now: a clean-up that is at work.
-- Parameters, arrays of equal length: merchant_ids (text[]), dates (date[]), metric_types (text[]).
SELECT d.merchant_id, d.date, d.metric_type, d.value
FROM usage_deletion AS d
JOIN unnest(%(merchant_ids)s::text[], %(dates)s::date[], %(metric_types)s::text[])
    AS k (merchant_id, date, metric_type) USING (merchant_id, date, metric_type)
FOR UPDATE OF d SKIP LOCKED;
