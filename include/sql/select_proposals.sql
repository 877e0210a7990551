-- Of some dead letters the newest proposal each. Read once their writers are locked out: then none is being made.
-- Parameters: letters (bigint[]: ids).
SELECT DISTINCT ON (letter_id) letter_id, id, proposed_by, reason, redis_value, value_before, value_after
FROM usage_proposal
WHERE letter_id = ANY (%(letters)s::bigint[])
ORDER BY letter_id, id DESC;
