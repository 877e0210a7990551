-- One migration at a time; the lock goes with the transaction. The number is ASCII "usage".
SELECT pg_advisory_xact_lock(x'7573616765'::bigint);
