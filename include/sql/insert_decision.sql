-- Write down who decided what, and why; nothing of it is ever changed. Parameters: redis_key (bytea, NULL for a whole date),
-- usage_date, decision, decided_by, decided_at, reason (text or NULL), value_before and value_after (what was and is stored);
-- where a second person approved it, approved_by, approved_at, approval_reason and proposal_id, else NULL.
INSERT INTO usage_decision (redis_key, usage_date, decision, decided_by, decided_at, reason, value_before, value_after,
                            approved_by, approved_at, approval_reason, proposal_id)
VALUES (%(redis_key)s, %(usage_date)s, %(decision)s, %(decided_by)s, %(decided_at)s, %(reason)s, %(value_before)s,
        %(value_after)s, %(approved_by)s, %(approved_at)s, %(approval_reason)s, %(proposal_id)s);
