-- With USAGE_APPROVALS=2 nobody lowers what a merchant is billed for alone: who says `accept` proposes a number, and a second
-- person approves just that number. Rows of usage_proposal are only ever added: a proposal is open while its dead letter is,
-- and no newer one of the same letter has taken its place.
CREATE TABLE IF NOT EXISTS usage_proposal (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- That of usage_dead_letter.
    letter_id    bigint      NOT NULL,
    redis_key    bytea       NOT NULL,
    usage_date   date,
    proposed_by  text        NOT NULL,
    proposed_at  timestamptz NOT NULL,
    reason       text,
    -- The counter as it was read then; NULL: it was gone.
    redis_value  bigint,
    value_before bigint      NOT NULL,
    value_after  bigint      NOT NULL
);
CREATE INDEX IF NOT EXISTS usage_proposal_letter ON usage_proposal (letter_id);

-- A decision that somebody approved names its proposal. Its own time is that at which it took effect: a run that read the date
-- before that has seen nothing of it.
DO $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_attribute
        WHERE attrelid = 'usage_decision'::regclass AND attname = 'proposal_id' AND NOT attisdropped
    ) THEN
        ALTER TABLE usage_decision
            ADD COLUMN proposal_id     bigint,
            ADD COLUMN approval_reason text,
            ADD CONSTRAINT usage_decision_by_two CHECK (approved_by <> decided_by);
    END IF;
END
$$;
