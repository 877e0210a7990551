-- What stands in the database under our tables' names. Parameters: tables (text[]).
-- to_regclass follows the search_path as the queries do, and is NULL (no row) for a table that is missing.
SELECT name AS table_name,
       a.attname AS column_name,
       format_type(a.atttypid, a.atttypmod) AS type,
       a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AND a.attgenerated = '' AS must_be_given,
       coalesce(c.collisdeterministic, true) AS deterministic
FROM unnest(%(tables)s::text[]) AS name
JOIN pg_attribute a ON a.attrelid = to_regclass(quote_ident(name)) AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_collation c ON c.oid = a.attcollation
ORDER BY name, a.attnum;
