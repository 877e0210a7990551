-- Why a number is what it is: what happened to a merchant's counters of a day, each a row with a sentence. Runs and decisions about
-- whole days are rows of each merchant that has any usage of the day; `metric_type` is NULL there.
-- Conditions on merchant_id and date reach the tables. Texts are compared byte by byte, whatever the collation of the table is.
-- Made again only where it stands on another merchant_usage than the one of today, or knows no corrections: readers are not held up.
DO $$
BEGIN
    IF 2 = (
        SELECT count(DISTINCT d.refobjid)
        FROM pg_rewrite w
        JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
        WHERE w.ev_class = to_regclass('usage_explained')
          AND d.refobjid IN ('merchant_usage'::regclass, 'merchant_usage_corrections'::regclass)
    ) THEN
        RETURN;
    END IF;
    CREATE OR REPLACE VIEW usage_explained AS
    -- What was counted between two readings, and what was decided and not counted.
    SELECT merchant_id COLLATE "C" AS merchant_id, date, metric_type COLLATE "C" AS metric_type, to_at AS happened_at,
           CASE WHEN correction THEN 'correction' ELSE 'counted' END AS kind, NULL::text AS by_whom,
           NULL::numeric AS value_before, NULL::numeric AS value_after,
           format(
               CASE WHEN correction THEN 'Corrected by %s: decided, and not counted.' ELSE 'Counted %s since %s UTC.' END,
               to_char(metric_value, 'FM999,999,999,999,999,999,999,990'), to_char(from_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI')
           ) AS told
    FROM merchant_usage_hourly
    UNION ALL
    -- A run came to an end.
    SELECT u.merchant_id COLLATE "C", u.date, NULL, coalesce(r.finished_at, r.started_at), 'run', r.requested_by, NULL, NULL,
           rtrim(format(
               'Run %s (%s, attempt %s), begun at %s UTC, %s: %s %s',
               r.run_id, r.run_type, r.attempt, to_char(r.started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'),
               CASE WHEN r.merchant_ids IS NULL THEN 'for all merchants'
                    ELSE format('for %s merchants, this one among them', cardinality(r.merchant_ids)) END,
               CASE WHEN r.verdict IS NULL AND r.error IS NULL THEN 'it has come to no end.'
                    WHEN r.verdict IS NULL THEN format('it failed: %s', r.error)
                    ELSE format(
                        '%s (%s). Of all it was for Redis had %s and PostgreSQL %s; %s rows were new, %s raised.',
                        r.verdict,
                        CASE WHEN r.settled THEN 'the day was over and settled' ELSE 'the day was not settled yet' END,
                        coalesce(to_char(r.redis_total, 'FM999,999,999,999,999,999,999,990'), 'nothing'),
                        coalesce(to_char(r.postgres_total, 'FM999,999,999,999,999,999,999,990'), 'nothing'),
                        r.rows_inserted, r.rows_updated
                    ) END,
               CASE WHEN r.verdict IS NOT NULL THEN r.error END
           ))
    FROM (SELECT DISTINCT merchant_id, date FROM merchant_usage) AS u
    JOIN usage_run AS r ON r.usage_date = u.date AND (r.merchant_ids IS NULL OR u.merchant_id = ANY (r.merchant_ids))
    UNION ALL
    -- A person decided a whole day.
    SELECT u.merchant_id COLLATE "C", u.date, NULL, c.decided_at, 'decision', c.decided_by, NULL, NULL,
           format('%s: what is stored of the whole day stands. %s', c.decision, coalesce(c.reason, 'No reason was given.'))
    FROM (SELECT DISTINCT merchant_id, date FROM merchant_usage) AS u
    JOIN usage_decision AS c ON c.usage_date = u.date AND c.redis_key IS NULL
    UNION ALL
    -- The day was sealed.
    SELECT u.merchant_id COLLATE "C", u.date, NULL, s.sealed_at, 'seal', NULL, NULL, NULL,
           format(
               'The day was sealed, version %s (%s), by run %s: %s counters of all merchants, %s in all. Root %s.',
               s.version, s.reason, s.run_id, s.counters, to_char(s.total, 'FM999,999,999,999,999,999,999,990'), encode(s.root, 'hex')
           )
    FROM (SELECT DISTINCT merchant_id, date FROM merchant_usage) AS u
    JOIN usage_seal AS s ON s.usage_date = u.date
    UNION ALL
    -- It was sealed with another total of this merchant than before.
    SELECT merchant_id, usage_date, NULL, corrected_at, 'correction', NULL, before, after,
           format(
               'The day had been sealed before (%s, version %s): an invoice that is out is corrected by %s.',
               reason, version, to_char(difference, 'FMSG999,999,999,999,999,999,999,990')
           )
    FROM merchant_usage_corrections
    UNION ALL
    -- What is known of a single key: {prefix}:{merchant}:{date}:{metric}, of which only the merchant may hold a colon.
    SELECT substr(
               e.name, length(p.key_prefix) + 2,
               greatest(length(e.name) - length(p.key_prefix) - length(split_part(e.name, ':', -1)) - length(':::YYYY-MM-DD'), 0)
           ) COLLATE "C",
           e.usage_date, split_part(e.name, ':', -1) COLLATE "C", e.happened_at, e.kind, e.by_whom, e.value_before, e.value_after, e.told
    FROM (
        SELECT CASE WHEN reason NOT IN ('malformed_key', 'bad_date') THEN convert_from(redis_key, 'UTF8') END AS name,
               usage_date, first_seen_at AS happened_at, 'dead letter' AS kind, NULL::text AS by_whom,
               NULL::numeric AS value_before, NULL::numeric AS value_after,
               format('The counter could not be taken, %s: %s', reason, detail) AS told
        FROM usage_dead_letter
        UNION ALL
        SELECT CASE WHEN reason NOT IN ('malformed_key', 'bad_date') THEN convert_from(redis_key, 'UTF8') END,
               usage_date, resolved_at, 'resolved', NULL, NULL, NULL,
               format('%s is no matter any more%s.', reason, coalesce(', by decision: ' || decision, ''))
        FROM usage_dead_letter
        WHERE resolved_at IS NOT NULL
        UNION ALL
        SELECT convert_from(redis_key, 'UTF8'), usage_date, proposed_at, 'proposal', proposed_by, value_before, value_after,
               format('accept was proposed. %s', coalesce(reason, 'No reason was given.'))
        FROM usage_proposal
        UNION ALL
        SELECT convert_from(redis_key, 'UTF8'), usage_date, decided_at, 'decision', decided_by, value_before, value_after,
               format('%s: %s%s', decision, coalesce(reason, 'No reason was given.'),
                      ' Approved by ' || approved_by || coalesce(': ' || approval_reason, '') || '.')
        FROM usage_decision
        WHERE redis_key IS NOT NULL
    ) AS e
    JOIN (SELECT DISTINCT usage_date, key_prefix FROM usage_run) AS p
        ON p.usage_date = e.usage_date AND starts_with(e.name, p.key_prefix || ':');
END
$$;
