-- Of each of some dates: the start of the newest run that proved it, of the newest that proved it once it was over and settled,
-- and of the newest that refuted it. Then the same three, where a run after which nothing was left but a person's decision
-- counts as a proof: the end of the date was not read, or counters went backwards and no other key failed, which would be
-- its error. A run reads Redis after its start, so what was counted before is proven with it. Runs of some merchants only
-- prove nothing of a date, but may refute it. That nothing is left of a date proves it once a person has said that what is
-- stored of it stands. Parameters: from_date, to_date.
SELECT usage_date,
       max(started_at) FILTER (WHERE proves) AS proven_at,
       max(started_at) FILTER (WHERE proves AND settled) AS closed_at,
       max(started_at) FILTER (WHERE refutes) AS refuted_at,
       max(started_at) FILTER (WHERE proves OR waits) AS proven_or_undecided_at,
       max(started_at) FILTER (WHERE (proves OR waits) AND settled) AS closed_or_undecided_at,
       max(started_at) FILTER (WHERE refutes AND NOT waits) AS failed_at
FROM (
    SELECT usage_date, started_at, settled,
           verdict IN ('verified', 'empty') OR (verdict = 'source_expired' AND EXISTS (
               SELECT FROM usage_decision AS c
               WHERE c.usage_date = run.usage_date AND c.redis_key IS NULL AND c.decided_at < run.started_at
           )) AS proves,
           verdict IN ('mismatch', 'not_proven', 'incomplete') AS refutes,
           verdict = 'incomplete' OR (verdict = 'mismatch' AND error IS NULL) AS waits
    FROM usage_run AS run
    WHERE usage_date BETWEEN %(from_date)s AND %(to_date)s AND (merchant_ids IS NULL OR verdict = 'mismatch')
) AS r
GROUP BY usage_date;
