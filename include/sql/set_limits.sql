-- Bounds for the current transaction: better a retried batch than a stuck application. A process that falls silent in it (stopped, or
-- on a machine that is gone) blocks nobody for longer than idle_limit; what the server or the role has set stands if it is less.
-- And no JIT: servers built with LLVM compile what they take for expensive, which takes far longer than any of our queries (15 times
-- a re-run, measured).
-- Arrays of ours hold NULL: a role may have that read as a text.
-- Parameters (text, with unit): lock_timeout, statement_timeout (NULL: as they are), idle_limit.
SELECT set_config('lock_timeout', coalesce(%(lock_timeout)s, current_setting('lock_timeout')), true),
       set_config('statement_timeout', coalesce(%(statement_timeout)s, current_setting('statement_timeout')), true),
       set_config('idle_in_transaction_session_timeout', (1000 * extract(epoch FROM least(
           nullif(current_setting('idle_in_transaction_session_timeout')::interval, '0'),
           %(idle_limit)s::interval)))::bigint::text, true),
       set_config('array_nulls', 'on', true),
       set_config('jit', 'off', true);
