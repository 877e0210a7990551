-- Whether every date of a run came to its verdict without an error. NULL for a run that is not in the ledger.
-- Parameters: run_id.
SELECT bool_and(verdict IS NOT NULL AND error IS NULL) FROM usage_run WHERE run_id = %(run_id)s;
