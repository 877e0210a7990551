-- Whether this server is a standby: a copy that takes no writes, and that may lag behind.
SELECT pg_is_in_recovery();
