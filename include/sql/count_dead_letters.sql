-- Open dead letters by reason.
SELECT reason, count(*) FROM usage_dead_letter WHERE resolved_at IS NULL GROUP BY reason ORDER BY reason;
