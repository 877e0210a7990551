-- Open letters of keys that their names keep from being usage keys: what tells each name from all others, its SHA-256.
-- Parameters: reasons (text[]).
SELECT coalesce(redis_key_sha256, sha256(redis_key))
FROM usage_dead_letter
WHERE resolved_at IS NULL AND reason = ANY (%(reasons)s::text[]);
