-- For the current transaction: cursors are planned for all of their rows, not for the first; and a page is found by its index, which
-- costs little more than reading in order on anything but a spinning disk. No JIT: see set_limits.
SELECT set_config('jit', 'off', true),
       set_config('cursor_tuple_fraction', '1', true),
       set_config('random_page_cost', '1.1', true),
       -- A plan made once for all dates would lock the partitions of all months.
       set_config('plan_cache_mode', CASE relkind WHEN 'p' THEN 'force_custom_plan' ELSE current_setting('plan_cache_mode') END, true)
FROM pg_class
WHERE oid = 'merchant_usage'::regclass;
