-- How many keys the servers had evicted when a run last saw them. No parameters.
SELECT server, redis_run_id, evicted_keys FROM usage_source;
