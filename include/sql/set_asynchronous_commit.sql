-- The commit of the current transaction does not wait for the disk. That of the verdict does, and WAL is written in order: a run
-- is only called verified once all it stored is on the disk. What a crash loses before that, verification misses.
SELECT set_config('synchronous_commit', 'off', true);
