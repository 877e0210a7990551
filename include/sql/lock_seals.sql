-- One seal at a time, so that they are one chain; the lock goes with the transaction. The number is ASCII "seals".
SELECT pg_advisory_xact_lock(x'7365616c73'::bigint);
