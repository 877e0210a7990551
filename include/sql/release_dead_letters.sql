-- The message about these could not be sent: they are news still. Parameters: told_at, as they were taken with;
-- regressed (boolean: counters that went backwards, or all others).
UPDATE usage_dead_letter
SET told_at = NULL
WHERE told_at = %(told_at)s AND (reason = 'counter_regressed') = %(regressed)s;
