-- Who asks, in which schema a new table would be made, what is needed for that and is not given, and the search_path. No parameters.
-- A schema that one may not look into is passed over in silence: if that leaves none, it is the first that exists.
SELECT quote_ident(current_user) AS role, schema::text, quote_ident(schema) AS target, array_remove(ARRAY[
           CASE WHEN NOT has_schema_privilege(schema, 'USAGE') THEN 'USAGE' END,
           CASE WHEN NOT has_schema_privilege(schema, 'CREATE') THEN 'CREATE' END], NULL) AS lacking,
       current_setting('search_path') AS search_path
FROM coalesce(current_schema(), (
    SELECT n.nspname
    FROM unnest(string_to_array(current_setting('search_path'), ',')) WITH ORDINALITY AS searched (name, place)
    JOIN pg_namespace n ON n.nspname = replace(trim(BOTH ' "' FROM searched.name), '$user', current_user)
    ORDER BY searched.place
    LIMIT 1)) AS schema;
