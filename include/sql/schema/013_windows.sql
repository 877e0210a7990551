-- Weeks of what merchants used, and whether they are closed: all of their days are sealed. Views are made again only where they
-- stand on another table than the one of today: readers are not held up. Months come after seals, whose corrections they tell.

-- The dates that are sealed: the same rule as in select_date_states, and a test holds one to the other.
DO $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_rewrite w
        JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
        WHERE w.ev_class = to_regclass('usage_sealed_date') AND d.refobjid = 'usage_run'::regclass
    ) THEN
        CREATE OR REPLACE VIEW usage_sealed_date AS
        SELECT d.usage_date
        FROM (
            SELECT DISTINCT usage_date
            FROM usage_run
            WHERE settled AND merchant_ids IS NULL AND verdict = 'verified'
        ) AS d
        CROSS JOIN LATERAL (
            SELECT max(r.started_at) AS read_at
            FROM usage_run AS r
            WHERE r.usage_date = d.usage_date AND r.merchant_ids IS NULL AND r.settled AND r.verdict IS NOT NULL
        ) AS ended
        WHERE 'verified' = (
            SELECT verdict
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
            LIMIT 1
        )
          AND NOT EXISTS (
              SELECT FROM usage_dead_letter AS l
              WHERE l.usage_date = d.usage_date AND l.reason = 'counter_regressed' AND l.resolved_at IS NULL
          );
    END IF;
END
$$;

-- A week or a month of all merchants is found by these; that of one merchant by the primary key.
CREATE INDEX IF NOT EXISTS merchant_usage_week ON merchant_usage
    USING brin ((date_trunc('week', date::timestamp)::date)) WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX IF NOT EXISTS merchant_usage_month ON merchant_usage
    USING brin ((date_trunc('month', date::timestamp)::date)) WITH (pages_per_range = 32, autosummarize = on);

-- ISO weeks, named by their Mondays.
DO $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_rewrite w
        JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
        WHERE w.ev_class = to_regclass('merchant_usage_weekly') AND d.refobjid = 'merchant_usage'::regclass
    ) THEN
        CREATE OR REPLACE VIEW merchant_usage_weekly AS
        SELECT used.merchant_id, used.week, used.metric_type, used.value, 7 AS days, coalesce(sealed.days, 0)::integer AS days_sealed,
               coalesce(sealed.days, 0) = 7 AS closed
        FROM (
            SELECT merchant_id, date_trunc('week', date::timestamp)::date AS week, metric_type, sum(metric_value) AS value
            FROM merchant_usage
            GROUP BY merchant_id, date_trunc('week', date::timestamp)::date, metric_type
        ) AS used
        LEFT JOIN (
            SELECT date_trunc('week', usage_date::timestamp)::date AS week, count(*) AS days
            FROM usage_sealed_date
            GROUP BY date_trunc('week', usage_date::timestamp)::date
        ) AS sealed ON sealed.week = used.week;
    END IF;
END
$$;
