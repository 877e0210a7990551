-- Whether another scheduled run of all merchants that began since a moment came to a verdict. Parameters: run_id, since (timestamptz).
SELECT EXISTS (
    SELECT FROM usage_run
    WHERE started_at >= %(since)s AND run_type = 'scheduled' AND run_id <> %(run_id)s AND merchant_ids IS NULL
      AND verdict IS NOT NULL
);
