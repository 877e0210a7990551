-- Write down how many keys the servers have evicted. Of two runs at once the one that saw more counts.
-- Parameters, arrays of equal length, in the order of the servers: servers (text[]), redis_run_ids (text[]),
-- evicted_keys (bigint[]); and now.
INSERT INTO usage_source AS s (server, redis_run_id, evicted_keys, seen_at)
SELECT *, %(now)s::timestamptz
FROM unnest(%(servers)s::text[], %(redis_run_ids)s::text[], %(evicted_keys)s::bigint[])
ON CONFLICT (server) DO UPDATE
    SET redis_run_id = EXCLUDED.redis_run_id, seen_at = greatest(s.seen_at, EXCLUDED.seen_at),
        evicted_keys = CASE
            WHEN s.redis_run_id = EXCLUDED.redis_run_id AND s.seen_at > EXCLUDED.seen_at
                THEN greatest(s.evicted_keys, EXCLUDED.evicted_keys)
            ELSE EXCLUDED.evicted_keys
        END;
