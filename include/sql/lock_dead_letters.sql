-- One writer of dead letters at a time, until its transaction ends: each opens some and resolves others, and no order of rows
-- would keep two of them from waiting for each other. Taken after rows of merchant_usage, never before. No parameters.
SELECT pg_advisory_xact_lock(hashtext('usage_dead_letter'));
