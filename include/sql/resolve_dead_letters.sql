-- Close the open letters of these keys. Parameters: keys (bytea[]), reasons (text[]).
UPDATE usage_dead_letter
SET resolved_at = now()
WHERE resolved_at IS NULL
  AND reason = ANY (%(reasons)s::text[])
  AND sha256(redis_key) IN (SELECT sha256(key) FROM unnest(%(keys)s::bytea[]) AS key);
