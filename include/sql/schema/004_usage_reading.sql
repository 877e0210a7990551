-- What the rows of a day that still grows must hold at least, because a run read so much: kept from its upserts to its
-- verification, it makes "behind" provable while the counter moves on. Days that are settled need no row here.
-- UNLOGGED: no WAL. After a crash of the server the table is empty, which verification notices.
CREATE UNLOGGED TABLE IF NOT EXISTS usage_reading (
    run_id      text             NOT NULL,
    merchant_id text COLLATE "C" NOT NULL,
    date        date             NOT NULL,
    metric_type text COLLATE "C" NOT NULL,
    value       bigint           NOT NULL,
    read_at     timestamptz      NOT NULL DEFAULT now()
);
