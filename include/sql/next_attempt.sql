-- The number of a run's next attempt. Two scans of one run id at once (a worker that was thought lost) get different ones: the
-- lock is held until the attempt is entered. Parameters: run_id.
SELECT coalesce(max(attempt), 0) + 1
FROM usage_run, (SELECT pg_advisory_xact_lock(hashtext('usage_run'), hashtext(%(run_id)s))) AS locked
WHERE run_id = %(run_id)s;
