-- Dates of some runs that no run has verified since those began. Parameters: run_ids (text[]).
SELECT DISTINCT usage_date
FROM usage_run AS failed
WHERE run_id = ANY (%(run_ids)s::text[])
  AND NOT EXISTS (
      SELECT FROM usage_run AS later
      WHERE later.usage_date = failed.usage_date AND later.verdict = 'verified' AND later.merchant_ids IS NULL
        AND later.started_at >= failed.started_at
  )
ORDER BY usage_date;
