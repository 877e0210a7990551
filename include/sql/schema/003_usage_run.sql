-- The ledger: one row a DAG run and usage date. It answers: has this date been aggregated, when, by whom,
-- and does it match? `merchant_ids` is NULL for a run over all merchants; `verdict` stays NULL until the
-- run is proven or refuted.
CREATE TABLE IF NOT EXISTS usage_run (
    run_id         text        NOT NULL,
    usage_date     date        NOT NULL,
    run_type       text        NOT NULL,
    merchant_ids   text[],
    settled        boolean     NOT NULL,
    started_at     timestamptz NOT NULL,
    finished_at    timestamptz,
    keys_scanned   bigint      NOT NULL DEFAULT 0,
    merchants      bigint      NOT NULL DEFAULT 0,
    rows_inserted  bigint      NOT NULL DEFAULT 0,
    rows_updated   bigint      NOT NULL DEFAULT 0,
    rows_unchanged bigint      NOT NULL DEFAULT 0,
    dead_letters   bigint      NOT NULL DEFAULT 0,
    regressed      bigint      NOT NULL DEFAULT 0,
    redis_total    numeric,
    postgres_total numeric,
    verdict        text CHECK (verdict IN ('verified', 'mismatch', 'source_expired', 'empty')),
    error          text,
    PRIMARY KEY (run_id, usage_date)
);
CREATE INDEX IF NOT EXISTS usage_run_usage_date ON usage_run (usage_date, started_at);
