-- What the daily audit found and nothing has put right since, the newest first. Parameters: limit (bigint).
SELECT alert_key, raised_at
FROM usage_alert
WHERE kind = 'seal_broken' AND resolved_at IS NULL
ORDER BY raised_at DESC, alert_key
LIMIT %(limit)s;
