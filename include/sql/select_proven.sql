-- Of each of some dates: the start of the newest run that proved it, of the newest that proved it once it was over and settled,
-- and of the newest that refuted it. A run reads Redis after its start, so what was counted before is proven with it. Runs
-- of some merchants only prove nothing of a date. Parameters: from_date, to_date.
SELECT usage_date,
       max(started_at) FILTER (WHERE verdict IN ('verified', 'empty')) AS proven_at,
       max(started_at) FILTER (WHERE verdict IN ('verified', 'empty') AND settled) AS closed_at,
       max(started_at) FILTER (WHERE verdict = 'mismatch') AS refuted_at
FROM usage_run
WHERE usage_date BETWEEN %(from_date)s AND %(to_date)s AND merchant_ids IS NULL
GROUP BY usage_date;
