-- The ledger keeps attempts: a run that is cleared adds rows, and nothing is overwritten once it has a verdict.
-- Beside them what a later reader has to know of a run: the settings that decide what keys mean, and whether it read the
-- end of its date. ADD COLUMN IF NOT EXISTS locks the table even when there is nothing to add: look first.
DO $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_attribute WHERE attrelid = 'usage_run'::regclass AND attname = 'attempt' AND NOT attisdropped
    ) THEN
        ALTER TABLE usage_run
            ADD COLUMN attempt        integer NOT NULL DEFAULT 1,
            -- Who asked for the run, where that is known.
            ADD COLUMN requested_by   text,
            -- The date was over and settled, for all merchants, and each counter that was read is stored.
            ADD COLUMN complete       boolean NOT NULL DEFAULT false,
            ADD COLUMN key_prefix     text,
            ADD COLUMN timezone       text,
            ADD COLUMN settle_hours   integer,
            ADD COLUMN retention_days integer,
            DROP CONSTRAINT usage_run_pkey,
            ADD PRIMARY KEY (run_id, attempt, usage_date),
            DROP CONSTRAINT IF EXISTS usage_run_verdict_check,
            ADD CONSTRAINT usage_run_verdict_check CHECK (
                verdict IN ('verified', 'mismatch', 'source_expired', 'empty', 'not_proven', 'incomplete')
            );
        -- What was verified before read the end of its date, too.
        UPDATE usage_run SET complete = true WHERE settled AND merchant_ids IS NULL AND verdict = 'verified';
    END IF;
END
$$;

-- Readings belong to an attempt, and within it to a batch: a batch that is stored again replaces them. What is in the
-- table belongs to runs that are under way, so it may be made anew.
DO $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_attribute WHERE attrelid = 'usage_reading'::regclass AND attname = 'attempt' AND NOT attisdropped
    ) THEN
        ALTER TABLE usage_reading
            ADD COLUMN attempt integer NOT NULL DEFAULT 1,
            ADD COLUMN batch   integer NOT NULL DEFAULT 0;
    END IF;
END
$$;
CREATE INDEX IF NOT EXISTS usage_reading_attempt ON usage_reading (run_id, attempt, batch);

-- Who decided what, when and why; append only. `redis_key` is NULL where a whole date was decided: nobody read its end
-- while its keys lived, and a person takes what is stored for right.
CREATE TABLE IF NOT EXISTS usage_decision (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    redis_key    bytea,
    usage_date   date,
    decision     text        NOT NULL CHECK (decision IN ('keep', 'accept', 'carry')),
    decided_by   text        NOT NULL,
    decided_at   timestamptz NOT NULL DEFAULT now(),
    reason       text,
    approved_by  text,
    approved_at  timestamptz,
    value_before bigint,
    value_after  bigint
);
CREATE INDEX IF NOT EXISTS usage_decision_date ON usage_decision (usage_date);

-- What clean-up is about to delete from Redis, from before the delete until the row carries its value: a key that comes
-- back afterwards counts from zero, and is added.
CREATE TABLE IF NOT EXISTS usage_deletion (
    merchant_id text COLLATE "C" NOT NULL,
    date        date             NOT NULL,
    metric_type text COLLATE "C" NOT NULL,
    value       bigint           NOT NULL,
    begun_at    timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (merchant_id, date, metric_type)
);

-- Decided letters of a key are asked for whenever it went backwards, and open ones of a date by each run.
CREATE INDEX IF NOT EXISTS usage_dead_letter_decided
    ON usage_dead_letter (sha256(redis_key)) WHERE reason = 'counter_regressed' AND decision IS NOT NULL;
CREATE INDEX IF NOT EXISTS usage_dead_letter_date ON usage_dead_letter (usage_date) WHERE resolved_at IS NULL;
