-- All prefixes that runs have read keys by: letters of an earlier one can still be decided. No parameters.
SELECT DISTINCT key_prefix FROM usage_run WHERE key_prefix IS NOT NULL;
