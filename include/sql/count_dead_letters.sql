-- Open dead letters by reason, and the bytes of their names.
SELECT reason, count(*), sum(octet_length(redis_key))
FROM usage_dead_letter
WHERE resolved_at IS NULL
GROUP BY reason
ORDER BY reason;
