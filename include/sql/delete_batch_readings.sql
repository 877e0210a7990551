-- A batch is stored (again): what an earlier try read of it counts no more. Parameters: run_id, attempt, batch.
DELETE FROM usage_reading WHERE run_id = %(run_id)s AND attempt = %(attempt)s AND batch = %(batch)s;
