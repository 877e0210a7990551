-- How many keys each Redis server had evicted, as the last run saw that came to its end: what has grown since is usage that
-- may be lost. A server counts from zero whenever it is started, and has a new redis_run_id then.
CREATE TABLE IF NOT EXISTS usage_source (
    server       text        PRIMARY KEY,
    redis_run_id text        NOT NULL,
    evicted_keys bigint      NOT NULL,
    seen_at      timestamptz NOT NULL
);
