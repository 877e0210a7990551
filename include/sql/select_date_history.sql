-- What earlier attempts know of some dates: whether one read the end of the date, when one read it at all (some merchants, or without
-- an end to the run, count: its rows are there), what was stored then, whether this run verified it already, and by which
-- prefixes its keys were read. That a person decided that what is stored stands ends it, too. The attempt that asks does not count.
-- Parameters: dates (date[]), run_id, attempt.
SELECT d.usage_date,
       coalesce(bool_or(r.complete AND r.merchant_ids IS NULL), false)
           OR EXISTS (SELECT FROM usage_decision AS c WHERE c.usage_date = d.usage_date AND c.redis_key IS NULL),
       max(r.started_at) FILTER (WHERE r.keys_scanned > 0),
       (array_agg(r.postgres_total ORDER BY r.started_at DESC, r.attempt DESC)
           FILTER (WHERE r.verdict IS NOT NULL AND r.merchant_ids IS NULL AND r.keys_scanned > 0))[1],
       EXISTS (
           SELECT FROM usage_run AS own
           WHERE own.run_id = %(run_id)s AND own.usage_date = d.usage_date AND own.verdict = 'verified'
       ),
       array_agg(DISTINCT r.key_prefix) FILTER (WHERE r.keys_scanned > 0 AND r.key_prefix IS NOT NULL)
FROM unnest(%(dates)s::date[]) AS d (usage_date)
LEFT JOIN usage_run AS r
    ON r.usage_date = d.usage_date AND (r.run_id, r.attempt) <> (%(run_id)s::text, %(attempt)s::integer)
GROUP BY d.usage_date;
