-- All seals in the order of the chain, each with the chain of the one that stands before it. Parameters: after (bigint: only those with
-- a larger number).
SELECT s.seal_number, s.usage_date, s.version, s.sealed_at, s.run_id, s.counters, s.total, s.root, s.reason, p.chain, s.chain,
       s.signature
FROM usage_seal AS s
LEFT JOIN usage_seal AS p ON p.seal_number = s.seal_number - 1
WHERE s.seal_number > %(after)s
ORDER BY s.seal_number;
