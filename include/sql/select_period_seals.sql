-- The chain of seals from the first to the last one of the dates of a period, without a gap: those of other dates that lie in between,
-- too, because each hangs on the one before. Parameters: from_date, to_date.
SELECT s.seal_number, s.usage_date, s.version, s.sealed_at, s.run_id, s.counters, s.total, s.root, s.reason, p.chain, s.chain,
       s.signature
FROM usage_seal AS s
LEFT JOIN usage_seal AS p ON p.seal_number = s.seal_number - 1
WHERE s.seal_number BETWEEN
          (SELECT min(seal_number) FROM usage_seal WHERE usage_date BETWEEN %(from_date)s AND %(to_date)s)
      AND (SELECT max(seal_number) FROM usage_seal WHERE usage_date BETWEEN %(from_date)s AND %(to_date)s)
ORDER BY s.seal_number;
