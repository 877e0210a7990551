-- The newest version of the seal of each of some dates, each with the chain of the seal before it (NULL: it is not there).
-- Parameters: dates (date[]).
SELECT s.seal_number, s.usage_date, s.version, s.sealed_at, s.run_id, s.counters, s.total, s.root, s.reason, p.chain, s.chain,
       s.signature
FROM unnest(%(dates)s::date[]) AS d (usage_date)
CROSS JOIN LATERAL (
    SELECT * FROM usage_seal AS v WHERE v.usage_date = d.usage_date ORDER BY version DESC LIMIT 1
) AS s
LEFT JOIN usage_seal AS p ON p.seal_number = s.seal_number - 1
ORDER BY s.usage_date;
