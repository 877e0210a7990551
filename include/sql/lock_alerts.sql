-- One process at a time decides what is told; the lock goes with the transaction. The number is ASCII "alert".
SELECT pg_advisory_xact_lock(x'616c657274'::bigint);
