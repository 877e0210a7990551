-- Dates that are over, settled and verified for all merchants by another run. A counter that waits for a
-- decision keeps its date from being verified, and so from being sealed.
-- Parameters: dates (date[]), run_id (a run that is repeated does its work again).
SELECT DISTINCT usage_date
FROM usage_run
WHERE usage_date = ANY (%(dates)s::date[])
  AND run_id <> %(run_id)s
  AND settled AND merchant_ids IS NULL AND verdict = 'verified';
