-- Write down that somebody would accept a lower value; it waits for a second person. Parameters: letter_id, redis_key (bytea),
-- usage_date, proposed_by, proposed_at, reason (text or NULL), redis_value (the counter, NULL: it is gone), value_before (what
-- is stored), value_after (what would be).
INSERT INTO usage_proposal (letter_id, redis_key, usage_date, proposed_by, proposed_at, reason, redis_value, value_before,
                            value_after)
VALUES (%(letter_id)s, %(redis_key)s, %(usage_date)s, %(proposed_by)s, %(proposed_at)s, %(reason)s, %(redis_value)s,
        %(value_before)s, %(value_after)s);
