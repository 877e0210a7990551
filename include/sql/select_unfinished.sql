-- Runs of a kind that began lately and have come to no end, the oldest first. Parameters: run_type, since.
-- A row of a run that failed has an error and no verdict; of one that goes on, or that was killed, neither.
SELECT run_id, min(started_at)
FROM usage_run
WHERE run_type = %(run_type)s AND started_at > %(since)s AND verdict IS NULL AND error IS NULL
GROUP BY run_id
ORDER BY min(started_at), run_id;
