-- Bounds for the current transaction: better a retried batch than a stuck application.
-- Parameters: lock_timeout, statement_timeout (text, with unit).
SELECT set_config('lock_timeout', %(lock_timeout)s, true),
       set_config('statement_timeout', %(statement_timeout)s, true);
