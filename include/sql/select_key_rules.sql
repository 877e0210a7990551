-- The settings by which runs of some days read keys, the latest first. Parameters: from_date.
SELECT key_prefix, timezone, settle_hours, retention_days
FROM usage_run
WHERE usage_date >= %(from_date)s AND key_prefix IS NOT NULL
GROUP BY key_prefix, timezone, settle_hours, retention_days
ORDER BY max(started_at) DESC;
