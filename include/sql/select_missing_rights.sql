-- Which of these rights a role lacks, and what to name in a GRANT. Parameters: role (text; NULL: the one that asks), tables (text[]) and
-- rights (text[]) of equal length, with_temporary (boolean: temporary tables are needed, too).
-- A right on some columns will do: who gave it so knows why. A table in a schema that the role may not look into is one that is missing
-- to the queries: it is found here where the search_path means it to be. A table that the application made may take values from a
-- sequence, which an INSERT must be allowed, too. Of a function, which is named with its types, the right is EXECUTE.
WITH asked AS (
    SELECT coalesce(%(role)s::text, current_user::text) AS role
), hidden AS (
    SELECT n.oid AS schema, c.relname, c.oid
    FROM unnest(string_to_array(current_setting('search_path'), ',')) AS searched
    JOIN pg_namespace n ON n.nspname = replace(trim(BOTH ' "' FROM searched), '$user', current_user)
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'p')
    WHERE NOT has_schema_privilege(n.oid, 'USAGE')
), wanted AS (
    SELECT w.place, w.privilege, w.name, c.oid, n.nspname, quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS target
    FROM unnest(%(tables)s::text[], %(rights)s::text[]) WITH ORDINALITY AS w (name, privilege, place)
    JOIN pg_class c
        ON c.oid = coalesce(to_regclass(quote_ident(w.name)), (SELECT min(h.oid) FROM hidden AS h WHERE h.relname = w.name))
    JOIN pg_namespace n ON n.oid = c.relnamespace
), needed AS (
    SELECT -1 AS place, 'TEMPORARY' AS privilege, 'database ' || current_database() AS name,
           'DATABASE ' || quote_ident(current_database()) AS target,
           has_database_privilege(role, current_database(), 'TEMPORARY') AS given
    FROM asked
    WHERE %(with_temporary)s
    UNION
    SELECT 0, 'USAGE', 'schema ' || nspname, 'SCHEMA ' || quote_ident(nspname), has_schema_privilege(role, nspname, 'USAGE')
    FROM asked, wanted
    UNION
    SELECT place, privilege, name, target, CASE privilege
        WHEN 'DELETE' THEN has_table_privilege(role, oid, privilege)
        ELSE has_any_column_privilege(role, oid, privilege)
    END
    FROM asked, wanted
    UNION
    SELECT w.place, w.privilege, 'function ' || w.name, 'FUNCTION ' || quote_ident(n.nspname) || '.' || w.name,
           has_function_privilege(role, p.oid, 'EXECUTE')
    FROM asked
    CROSS JOIN unnest(%(tables)s::text[], %(rights)s::text[]) WITH ORDINALITY AS w (name, privilege, place)
    JOIN pg_proc p ON p.oid = to_regprocedure(w.name) AND w.privilege = 'EXECUTE'
    JOIN pg_namespace n ON n.oid = p.pronamespace
    UNION
    SELECT w.place, 'USAGE', 'sequence ' || s.relname, 'SEQUENCE ' || quote_ident(n.nspname) || '.' || quote_ident(s.relname),
           has_sequence_privilege(role, s.oid, 'USAGE') OR has_sequence_privilege(role, s.oid, 'UPDATE')
    FROM asked
    CROSS JOIN wanted AS w
    JOIN pg_attrdef e ON e.adrelid = w.oid AND w.privilege = 'INSERT'
    JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = e.oid AND d.refclassid = 'pg_class'::regclass
    JOIN pg_class s ON s.oid = d.refobjid AND s.relkind = 'S'
    JOIN pg_namespace n ON n.oid = s.relnamespace
)
SELECT quote_ident(role), privilege, name, target
FROM needed, asked
WHERE NOT given
ORDER BY place, name;
