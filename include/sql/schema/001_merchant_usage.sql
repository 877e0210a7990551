-- The sink: one row a merchant, day and metric, absolute values, what merchants are billed for.
-- Accepts a table that the application made earlier: only `carried` is added to it.
-- COLLATE "C" compares bytes, which is 10 to 20 % faster here and the order in which we write;
-- fillfactor 80 leaves room on each page, so that hourly updates are HOT and touch no index.
CREATE TABLE IF NOT EXISTS merchant_usage (
    merchant_id  text COLLATE "C" NOT NULL,
    date         date             NOT NULL,
    metric_type  text COLLATE "C" NOT NULL,
    metric_value bigint           NOT NULL,
    carried      bigint           NOT NULL DEFAULT 0,
    created_at   timestamptz      NOT NULL DEFAULT now(),
    updated_at   timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (merchant_id, date, metric_type)
) WITH (fillfactor = 80);

-- ADD COLUMN IF NOT EXISTS locks the table even when there is nothing to add: look first.
DO $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_attribute
        WHERE attrelid = 'merchant_usage'::regclass AND attname = 'carried' AND NOT attisdropped
    ) THEN
        ALTER TABLE merchant_usage ADD COLUMN carried bigint NOT NULL DEFAULT 0;
    END IF;
END
$$;

-- Verification reads whole days, and the key starts with the merchant. Rows arrive day by day, so a block
-- range index finds a day in a few kilobytes and costs nearly nothing to keep.
CREATE INDEX IF NOT EXISTS merchant_usage_date ON merchant_usage USING brin (date) WITH (pages_per_range = 32, autosummarize = on);
