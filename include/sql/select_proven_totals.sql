-- What PostgreSQL held of each date of an attempt when it was proven; nothing unless all of its dates have a verdict and no error
-- (that a date is incomplete is none).
-- Parameters: run_id, attempt.
SELECT usage_date, postgres_total
FROM usage_run AS r
WHERE run_id = %(run_id)s AND attempt = %(attempt)s
  AND NOT EXISTS (
      SELECT FROM usage_run AS other
      WHERE other.run_id = r.run_id AND other.attempt = r.attempt
        AND (other.verdict IS NULL OR (other.error IS NOT NULL AND other.verdict <> 'incomplete'))
  );
