-- Drop the weeks of hourly history that are over before a date, and make those to come. Parameters: first_kept (date).
-- Returns how many weeks were dropped, and how many rows that no week had room for.
SELECT weeks, rows FROM usage_keep_hourly_history(%(first_kept)s::date);
