-- How some dates stand after all whole runs so far: what counts is the newest verdict that says something of the end of the
-- date, given once it was over and settled. That Redis has nothing left does no harm to a date that was verified before with
-- the same sum; with another one its rows were changed, and nothing is left to prove them by.
-- A mismatch in which nothing was missing is answered by a person's decision, once a run has come to a verdict after that.
-- A run of some merchants proves nothing of a date, but it can refute it.
-- A counter that waits for a decision keeps its date from being sealed, whatever the verdicts are.
-- `proven_at` is the begin of the newest run that verified the date, live or over; `read_at` that of the newest that came to a
-- verdict about its end.
-- Parameters: dates (date[]).
SELECT d.usage_date,
       (SELECT verdict
        FROM usage_run AS r
        WHERE r.usage_date = d.usage_date AND r.settled AND r.verdict IS NOT NULL
          AND (r.merchant_ids IS NULL OR r.verdict = 'mismatch')
          AND NOT (r.verdict = 'mismatch' AND r.complete IS TRUE AND EXISTS (
              SELECT FROM usage_decision AS c
              WHERE c.usage_date = d.usage_date AND c.decided_at > r.started_at AND c.decided_at < ended.read_at
          ))
        ORDER BY r.verdict = 'source_expired' AND EXISTS (
                     SELECT FROM usage_run AS v
                     WHERE v.usage_date = d.usage_date AND v.merchant_ids IS NULL AND v.settled AND v.verdict = 'verified'
                       AND v.postgres_total = r.postgres_total
                 ), r.started_at DESC, r.attempt DESC
        LIMIT 1),
       (SELECT max(r.started_at)
        FROM usage_run AS r
        WHERE r.usage_date = d.usage_date AND r.merchant_ids IS NULL AND r.verdict = 'verified'),
       (SELECT r.postgres_total
        FROM usage_run AS r
        WHERE r.usage_date = d.usage_date AND r.merchant_ids IS NULL AND r.settled AND r.verdict = 'verified'
        ORDER BY r.started_at DESC, r.attempt DESC
        LIMIT 1),
       EXISTS (
           SELECT FROM usage_dead_letter AS l
           WHERE l.usage_date = d.usage_date AND l.reason = 'counter_regressed' AND l.resolved_at IS NULL
       ),
       EXISTS (
           SELECT FROM usage_decision AS c
           WHERE c.usage_date = d.usage_date AND c.decided_at > coalesce(ended.read_at, '-infinity')
       ),
       ended.read_at
FROM unnest(%(dates)s::date[]) AS d (usage_date)
CROSS JOIN LATERAL (
    SELECT max(r.started_at) AS read_at
    FROM usage_run AS r
    WHERE r.usage_date = d.usage_date AND r.merchant_ids IS NULL AND r.settled AND r.verdict IS NOT NULL
) AS ended;
