-- Bounds for the current transaction: better a retried batch than a stuck application.
-- And its commit does not wait for the disk. That of the verdict does, and WAL is written in order: a run is only called
-- verified once all it stored is on the disk. What a crash loses before that, verification misses.
-- Parameters: lock_timeout, statement_timeout (text, with unit).
SELECT set_config('lock_timeout', %(lock_timeout)s, true),
       set_config('statement_timeout', %(statement_timeout)s, true),
       set_config('synchronous_commit', 'off', true);
