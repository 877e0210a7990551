-- Close the open letters of these keys. Parameters: identities (bytea[]: the SHA-256 of each name), reasons (text[]).
UPDATE usage_dead_letter
SET resolved_at = now()
WHERE resolved_at IS NULL
  AND reason = ANY (%(reasons)s::text[])
  AND coalesce(redis_key_sha256, sha256(redis_key)) IN (SELECT unnest(%(identities)s::bytea[]));
