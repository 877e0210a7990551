-- Where readings of Redis land before they meet the table. Empty again with the end of the transaction, whatever its
-- end; made once a connection, because making a table writes WAL.
CREATE TEMPORARY TABLE IF NOT EXISTS usage_staged (
    merchant_id text COLLATE "C" NOT NULL,
    date        date             NOT NULL,
    metric_type text COLLATE "C" NOT NULL,
    value       bigint           -- NULL: a key's name only (verification)
) ON COMMIT DELETE ROWS;
