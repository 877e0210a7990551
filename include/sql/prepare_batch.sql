-- For the transaction of a batch. Its commit does not wait for the disk: that of the verdict does, and WAL is written in order, so
-- a run is only called verified once all it stored is on the disk. What a crash loses before that, verification misses.
-- A batch is a range of the primary key: with pages on anything but a spinning disk its index is the way, though parallel
-- tasks have left the rows in some other order. Otherwise each of 32 batches would read the whole table, with
-- helpers that take the cores of others (3.4 times the work, measured).
SELECT set_config('synchronous_commit', 'off', true),
       set_config('random_page_cost', '1.1', true),
       set_config('max_parallel_workers_per_gather', '0', true),
       -- A plan made once for all dates would lock the partitions of all months.
       set_config('plan_cache_mode', CASE relkind WHEN 'p' THEN 'force_custom_plan' ELSE current_setting('plan_cache_mode') END, true)
FROM pg_class
WHERE oid = 'merchant_usage'::regclass;
