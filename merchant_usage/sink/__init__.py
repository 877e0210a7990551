"""PostgreSQL: tables, the ledger, dead letters."""
