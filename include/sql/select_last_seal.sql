-- The end of the chain. No parameters. Returns seal_number, chain; no row before the first seal.
SELECT seal_number, chain FROM usage_seal ORDER BY seal_number DESC LIMIT 1;
