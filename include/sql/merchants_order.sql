-- Whether merchants stand in the primary key in the order of their bytes, so that those whose ids begin alike stand together. In any
-- other order they need not: a language may pass over punctuation, take two letters for one, or swap them.
-- PostgreSQL 14 has no column datlocprovider. No parameters.
SELECT (n.nspname = 'pg_catalog' AND c.collname IN ('C', 'POSIX', 'ucs_basic', 'pg_c_utf8'))
       OR (c.collname = 'default' AND n.nspname = 'pg_catalog'
           AND (to_jsonb(d) ->> 'datlocprovider' = 'b'
                OR (coalesce(to_jsonb(d) ->> 'datlocprovider', 'c') = 'c' AND d.datcollate IN ('C', 'POSIX'))))
FROM pg_attribute AS a
JOIN pg_collation AS c ON c.oid = a.attcollation
JOIN pg_namespace AS n ON n.oid = c.collnamespace
CROSS JOIN pg_database AS d
WHERE a.attrelid = 'merchant_usage'::regclass AND a.attname = 'merchant_id' AND d.datname = current_database();
