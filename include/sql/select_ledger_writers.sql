-- The roles beside the owner that may write the ledger: those that runs are made with. No parameters.
-- Of a table that nobody was given anything of there is no list of grants, and no row.
SELECT DISTINCT r.rolname::text
FROM pg_class c
CROSS JOIN LATERAL aclexplode(c.relacl) AS given
JOIN pg_roles r ON r.oid = given.grantee
WHERE c.oid = to_regclass('usage_run') AND given.privilege_type = 'INSERT' AND given.grantee <> c.relowner
ORDER BY 1;
