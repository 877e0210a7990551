-- Keys that were gone from Redis though their time was not over and their counters are stored. One that is back with more began
-- anew, unless Redis was restored: without this its row would be raised to the new count, and the old one be lost.
CREATE TABLE IF NOT EXISTS usage_absence (
    date        date             NOT NULL,
    merchant_id text COLLATE "C" NOT NULL,
    metric_type text COLLATE "C" NOT NULL,
    seen_at     timestamptz      NOT NULL,
    PRIMARY KEY (date, merchant_id, metric_type)
);
