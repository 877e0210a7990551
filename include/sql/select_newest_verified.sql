-- The run that ended last of those that verified a date for all merchants, and whose other dates are no mismatch and not
-- open: half a success must not reassure whoever watches for runs that stopped. No parameters.
SELECT run_id, max(finished_at) AS finished_at
FROM usage_run
GROUP BY run_id
HAVING bool_or(verdict = 'verified' AND merchant_ids IS NULL)
   AND bool_and(verdict IS NOT NULL AND verdict <> 'mismatch')
ORDER BY 2 DESC, run_id DESC
LIMIT 1;
