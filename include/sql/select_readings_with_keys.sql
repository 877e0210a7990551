-- What was read of some pages of a batch. Parameters: run_id, attempt, batch, pages (bytea[]).
-- Returns date, keys, and what their rows must hold at least.
SELECT date, keys, counters
FROM usage_reading
WHERE run_id = %(run_id)s AND attempt = %(attempt)s AND batch = %(batch)s AND page = ANY (%(pages)s::bytea[]);
