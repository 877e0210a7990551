-- The unique keys of merchant_usage that ON CONFLICT can use: whole, plain columns, checked at once; and a collation of theirs
-- that takes different ids for the same, which may be another one than the column's.
-- Columns that an index only INCLUDEs come after its first indnkeyatts, and are not unique.
SELECT array_agg(a.attname::text ORDER BY a.attname) AS columns,
       (SELECT min(quote_ident(c.collname)) FROM pg_collation c WHERE c.oid = ANY (i.indcollation) AND NOT c.collisdeterministic)
FROM pg_index i
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY ((i.indkey::smallint[])[0:i.indnkeyatts - 1])
WHERE i.indrelid = to_regclass('merchant_usage')
  AND i.indisunique AND i.indisvalid AND i.indimmediate
  AND i.indpred IS NULL AND i.indexprs IS NULL
GROUP BY i.indexrelid, i.indcollation;
