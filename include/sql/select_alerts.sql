-- What decides whether an alert is told: all that was raised or put right in the last hours, all that is open, and those of
-- some keys.
-- Parameters: since (timestamptz), keys (text[]).
SELECT alert_key, kind, raised_at, run_id, told, resolved_at
FROM usage_alert
WHERE raised_at > %(since)s OR resolved_at IS NULL OR resolved_at > %(since)s OR alert_key = ANY (%(keys)s::text[]);
