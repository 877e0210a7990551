-- Where readings of Redis land before they meet the table. Gone with the transaction, whatever its end.
CREATE TEMPORARY TABLE usage_staged (
    merchant_id text COLLATE "C" NOT NULL,
    date        date             NOT NULL,
    metric_type text COLLATE "C" NOT NULL,
    value       bigint           -- NULL: the key is gone (verification only)
) ON COMMIT DROP;
