-- The run is verified: its readings have done their work; so have those of runs that never came back.
-- Parameters: run_id.
DELETE FROM usage_reading WHERE run_id = %(run_id)s OR read_at < now() - interval '8 days';
