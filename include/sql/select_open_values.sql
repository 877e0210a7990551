-- Open letters that a good value resolves, a page at a time, oldest first. Parameters: reasons (text[]), after (bigint: the id of
-- the page before, 0 at first), limit (bigint).
SELECT id, redis_key, usage_date
FROM usage_dead_letter
WHERE resolved_at IS NULL AND reason = ANY (%(reasons)s::text[]) AND usage_date IS NOT NULL AND id > %(after)s
ORDER BY id
LIMIT %(limit)s;
