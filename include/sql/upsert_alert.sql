-- Keep what was raised. Parameters: alert_key, kind, run_id, raised_at, told, resolved_at.
INSERT INTO usage_alert (alert_key, kind, run_id, raised_at, told, resolved_at)
VALUES (%(alert_key)s, %(kind)s, %(run_id)s, %(raised_at)s, %(told)s, %(resolved_at)s)
ON CONFLICT (alert_key) DO UPDATE
    SET kind = EXCLUDED.kind, run_id = EXCLUDED.run_id, raised_at = EXCLUDED.raised_at, told = EXCLUDED.told,
        resolved_at = EXCLUDED.resolved_at;
