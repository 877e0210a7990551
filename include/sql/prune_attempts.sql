-- Forget attempts that began long ago and were superseded, a batch at a time: of the same run and date there is a later one
-- that says as much. The last word on a date stays, and so does each verdict that no later attempt has repeated.
-- Parameters: before (timestamptz), limit (bigint: rows of a batch).
DELETE FROM usage_run AS gone
WHERE (run_id, attempt, usage_date) IN (
    SELECT run_id, attempt, usage_date
    FROM usage_run AS r
    WHERE started_at < %(before)s::timestamptz
      AND EXISTS (
          SELECT FROM usage_run AS later
          WHERE later.run_id = r.run_id AND later.usage_date = r.usage_date AND later.attempt > r.attempt
            AND later.verdict IS NOT NULL
            AND (later.verdict = 'verified' OR r.verdict IS DISTINCT FROM 'verified')
            AND (later.complete OR NOT r.complete)
      )
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
);
