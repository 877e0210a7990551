-- Forget what was told long ago, a batch at a time. What goes on stays: failures that no verified run has put right, an open
-- incident, and what is told once while it lasts. Parameters: before (timestamptz), limit (bigint: rows of a batch).
DELETE FROM usage_alert
WHERE alert_key IN (
    SELECT alert_key
    FROM usage_alert
    WHERE raised_at < %(before)s::timestamptz
      AND (resolved_at IS NOT NULL OR kind IN ('no_data', 'about_to_expire', 'incomplete', 'late_usage'))
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
);
