-- Tables that a mapper of the application may have made for merchant_usage under a name of its own: "MerchantUsage", merchant_usages.
-- Looked for where queries would find merchant_usage, when it is not there. No parameters. Returns names, quoted where they must be.
SELECT concat(quote_ident(n.nspname), '.', quote_ident(c.relname))
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ANY (current_schemas(false))
  AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
  AND c.relname <> 'merchant_usage'
  AND lower(replace(c.relname, '_', '')) IN ('merchantusage', 'merchantusages')
ORDER BY c.relname;
