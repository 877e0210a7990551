-- Every key that could not be aggregated, and why. One open row a key and reason.
-- The unique index is on a digest: a Redis key may have 512 MB, an index entry 2.7 kB.
CREATE TABLE IF NOT EXISTS usage_dead_letter (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    redis_key     bytea       NOT NULL,
    reason        text        NOT NULL,
    detail        text        NOT NULL,
    usage_date    date,
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    last_seen_at  timestamptz NOT NULL DEFAULT now(),
    attempts      integer     NOT NULL DEFAULT 1,
    resolved_at   timestamptz,
    -- Of a counter_regressed: what Redis was last seen to hold, what was stored when the letter was opened, and
    -- what a person decided (keep, accept, carry; redis_value is then the counter at the decision).
    redis_value    bigint,
    postgres_value bigint,
    decision       text CHECK (decision IN ('keep', 'accept', 'carry'))
);
CREATE UNIQUE INDEX IF NOT EXISTS usage_dead_letter_open
    ON usage_dead_letter (sha256(redis_key), reason) WHERE resolved_at IS NULL;
