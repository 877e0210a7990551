-- What finds old rows to be forgotten, and open letters in their order, however many are resolved.
CREATE INDEX IF NOT EXISTS usage_dead_letter_resolved
    ON usage_dead_letter (resolved_at) WHERE resolved_at IS NOT NULL AND decision IS NULL;
CREATE INDEX IF NOT EXISTS usage_dead_letter_open_id ON usage_dead_letter (id) WHERE resolved_at IS NULL;
