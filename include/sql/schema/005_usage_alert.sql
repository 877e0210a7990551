-- What was told to people, so that nothing is told twice and no storm breaks loose, whichever process tells it.
-- One row a thing that can be told: a failed run, a late run, a date without data. `told` is false for what was left out
-- because too much was told already, or could not be sent; `resolved_at` is when a verified run put it right.
CREATE TABLE IF NOT EXISTS usage_alert (
    alert_key   text        PRIMARY KEY,
    kind        text        NOT NULL,
    run_id      text,
    raised_at   timestamptz NOT NULL,
    told        boolean     NOT NULL,
    resolved_at timestamptz
);

-- When people were told of a dead letter: only new ones are news. ADD COLUMN IF NOT EXISTS locks the table even when there
-- is nothing to add: look first.
DO $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_attribute
        WHERE attrelid = 'usage_dead_letter'::regclass AND attname = 'told_at' AND NOT attisdropped
    ) THEN
        ALTER TABLE usage_dead_letter ADD COLUMN told_at timestamptz;
    END IF;
END
$$;
