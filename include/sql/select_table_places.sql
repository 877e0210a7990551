-- Where tables of these names stand, the schemas in the order of the search_path, and whose they are. Parameters: tables (text[]).
-- is_ours: the role is the owner, or has what the owner has.
SELECT c.relname::text AS name, n.nspname::text AS schema, quote_ident(pg_get_userbyid(c.relowner)) AS owner,
       pg_has_role(c.relowner, 'USAGE') AS is_ours
FROM unnest(current_schemas(false)) WITH ORDINALITY AS searched (name, place)
JOIN pg_namespace n ON n.nspname = searched.name
JOIN pg_class c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
WHERE c.relname = ANY (%(tables)s::text[])
ORDER BY searched.place, c.relname;
