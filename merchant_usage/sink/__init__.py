"""PostgreSQL, and nothing else: tables, the ledger, dead letters."""
