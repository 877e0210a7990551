-- Readings of attempts that have ended an hour ago, or never will: their run is repeated from its scan, if at all.
-- Without this a site whose runs keep failing would keep each hour's readings. Parameters: run_id, attempt (of who asks), now.
DELETE FROM usage_reading AS r
USING (SELECT DISTINCT run_id, attempt FROM usage_reading) AS kept
LEFT JOIN LATERAL (
    SELECT max(finished_at) AS finished_at, max(started_at) AS started_at, bool_and(finished_at IS NOT NULL) AS has_ended
    FROM usage_run AS u
    WHERE u.run_id = kept.run_id AND u.attempt = kept.attempt
) AS run ON true
WHERE r.run_id = kept.run_id AND r.attempt = kept.attempt
  AND (kept.run_id, kept.attempt) <> (%(run_id)s::text, %(attempt)s::integer)
  AND (
      (kept.run_id = %(run_id)s AND kept.attempt < %(attempt)s)
      OR run.started_at IS NULL
      OR (run.has_ended AND run.finished_at < %(now)s::timestamptz - interval '1 hour')
      OR run.started_at < %(now)s::timestamptz - interval '2 days'
  );
