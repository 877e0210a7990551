-- The newest date that a run over all merchants verified or found empty, and of its runs the attempt that began last; of those
-- whose other dates are no mismatch and not open: half a success must not reassure whoever watches for runs that stopped.
-- No parameters.
SELECT run_id, usage_date, started_at, finished_at
FROM usage_run AS run
WHERE verdict IN ('verified', 'empty') AND merchant_ids IS NULL
  AND NOT EXISTS (
      SELECT FROM usage_run AS part
      WHERE part.run_id = run.run_id AND part.attempt = run.attempt
        AND (part.verdict IS NULL OR part.verdict NOT IN ('verified', 'empty', 'source_expired'))
  )
ORDER BY usage_date DESC, started_at DESC, run_id DESC, attempt DESC
LIMIT 1;
