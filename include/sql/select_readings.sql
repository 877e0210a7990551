-- What was read of a batch, a page a row. Parameters: run_id, attempt, batch.
-- Returns the hash of the page's keys, and what their rows must hold at least.
SELECT page, counters
FROM usage_reading
WHERE run_id = %(run_id)s AND attempt = %(attempt)s AND batch = %(batch)s;
