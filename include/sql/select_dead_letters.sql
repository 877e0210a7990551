-- Dead letters for people, newest first. Parameters: with_resolved (boolean), reason (text or NULL), limit (bigint).
SELECT redis_key, reason, detail, usage_date, first_seen_at, last_seen_at, attempts, resolved_at, decision,
       redis_key_sha256
FROM usage_dead_letter
WHERE (%(with_resolved)s OR resolved_at IS NULL) AND (%(reason)s::text IS NULL OR reason = %(reason)s)
ORDER BY last_seen_at DESC, id DESC
LIMIT %(limit)s;
