-- What stands in the database under our tables' names. Parameters: tables (text[]).
-- to_regclass follows the search_path as the queries do, and is NULL (no row) for a table that is missing.
-- A collation is named that takes different texts for the same.
-- Types come without quotes: a role may have all names quoted.
SELECT name AS table_name,
       a.attname AS column_name,
       replace(format_type(a.atttypid, a.atttypmod), '"', '') AS type,
       a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AND a.attgenerated = '' AS must_be_given,
       CASE WHEN NOT c.collisdeterministic THEN quote_ident(c.collname) END AS merging_collation
FROM unnest(%(tables)s::text[]) AS name
JOIN pg_attribute a ON a.attrelid = to_regclass(quote_ident(name)) AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_collation c ON c.oid = a.attcollation
ORDER BY name, a.attnum;
