-- What changed of dates after they were sealed: a row for each merchant whose total is another in a version than in the one before.
-- An invoice that is out is corrected by such a line, and not by a changed number. The leaves beside the seals say the same, but a
-- merchant's months would have to be looked for in all of them. As there, texts stand in the order of their bytes.
CREATE TABLE IF NOT EXISTS usage_correction (
    merchant_id  text COLLATE "C" NOT NULL,
    usage_date   date             NOT NULL,
    version      integer          NOT NULL,
    -- Of all metrics together. 0: nothing was stored of the merchant.
    total_before numeric          NOT NULL,
    total_after  numeric          NOT NULL,
    PRIMARY KEY (merchant_id, usage_date, version)
);
CREATE INDEX IF NOT EXISTS usage_correction_date ON usage_correction (usage_date, version);
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = 'usage_correction'::regclass AND tgname = 'append_only') THEN
        CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON usage_correction
            FOR EACH STATEMENT EXECUTE FUNCTION usage_seal_is_append_only();
    END IF;
END
$$;

-- Of versions that were sealed before there was this table, or by workers who do not know it yet: as in insert_corrections, and a
-- test holds one to the other. A clean-up changes no value, and there may be one for each date.
INSERT INTO usage_correction (merchant_id, usage_date, version, total_before, total_after)
SELECT changed.merchant_id, s.usage_date, s.version, changed.total_before, changed.total_after
FROM usage_seal AS s
CROSS JOIN LATERAL (
    SELECT held.merchant_id,
           coalesce(sum(held.total) FILTER (WHERE p.version < s.version), 0) AS total_before,
           coalesce(sum(held.total) FILTER (WHERE p.version = s.version), 0) AS total_after
    FROM usage_seal_page AS p
    CROSS JOIN LATERAL unnest(p.merchant_ids, p.totals) AS held (merchant_id, total)
    WHERE p.usage_date = s.usage_date AND p.version IN (s.version - 1, s.version)
      AND NOT EXISTS (
          SELECT FROM usage_seal_page AS other
          WHERE other.usage_date = p.usage_date AND other.page = p.page
            AND other.version = s.version * 2 - 1 - p.version AND other.leaves = p.leaves
      )
    GROUP BY held.merchant_id
) AS changed
WHERE s.version > 1 AND s.reason <> 'clean-up' AND changed.total_after <> changed.total_before
  AND NOT EXISTS (SELECT FROM usage_correction AS c WHERE c.usage_date = s.usage_date AND c.version = s.version);

DO $$
BEGIN
    IF to_regclass('merchant_usage_corrections') IS NULL THEN
        CREATE VIEW merchant_usage_corrections AS
        SELECT c.merchant_id, c.usage_date, date_trunc('month', c.usage_date::timestamp)::date AS month,
               s.sealed_at AS corrected_at, c.version, s.reason, c.total_before AS before, c.total_after AS after,
               c.total_after - c.total_before AS difference
        FROM usage_correction AS c
        JOIN usage_seal AS s ON s.usage_date = c.usage_date AND s.version = c.version;
    END IF;
END
$$;
-- A month of all merchants is found by this.
CREATE INDEX IF NOT EXISTS usage_correction_month ON usage_correction ((date_trunc('month', usage_date::timestamp)::date));

-- Months, named by their first days, and what was corrected of the merchant since their days were sealed: over all of its metrics,
-- because seals know no more, so the same in each row of the merchant and month. Texts are compared as those of merchant_usage are,
-- so that a condition on the merchant reaches both. Made again only where it stands on another merchant_usage than the one of today,
-- or knows no corrections: readers are not held up.
DO $$
DECLARE
    of_merchant text;
BEGIN
    IF 2 = (
        SELECT count(DISTINCT d.refobjid)
        FROM pg_rewrite w
        JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
        WHERE w.ev_class = to_regclass('merchant_usage_monthly')
          AND d.refobjid IN ('merchant_usage'::regclass, 'merchant_usage_corrections'::regclass)
    ) THEN
        RETURN;
    END IF;
    SELECT format('%I.%I', n.nspname, c.collname)
    INTO STRICT of_merchant
    FROM pg_attribute a
    JOIN pg_collation c ON c.oid = a.attcollation
    JOIN pg_namespace n ON n.oid = c.collnamespace
    WHERE a.attrelid = 'merchant_usage'::regclass AND a.attname = 'merchant_id';
    EXECUTE format(
        'CREATE OR REPLACE VIEW merchant_usage_monthly AS
        SELECT used.merchant_id, used.month, used.metric_type, used.value, used.days, coalesce(sealed.days, 0)::integer AS days_sealed,
               coalesce(sealed.days, 0) = used.days AS closed,
               coalesce(corrected.difference, 0) AS merchant_corrected, corrected.at AS merchant_corrected_at
        FROM (
            SELECT merchant_id, month, metric_type, value, (month + interval ''1 month'')::date - month AS days
            FROM (
                SELECT merchant_id, date_trunc(''month'', date::timestamp)::date AS month, metric_type, sum(metric_value) AS value
                FROM merchant_usage
                GROUP BY merchant_id, date_trunc(''month'', date::timestamp)::date, metric_type
            ) AS summed
        ) AS used
        LEFT JOIN (
            SELECT date_trunc(''month'', usage_date::timestamp)::date AS month, count(*) AS days
            FROM usage_sealed_date
            GROUP BY date_trunc(''month'', usage_date::timestamp)::date
        ) AS sealed ON sealed.month = used.month
        LEFT JOIN (
            SELECT merchant_id COLLATE %1$s AS merchant_id, month, sum(difference) AS difference, max(corrected_at) AS at
            FROM merchant_usage_corrections
            GROUP BY merchant_id COLLATE %1$s, month
        ) AS corrected ON corrected.merchant_id = used.merchant_id AND corrected.month = used.month', of_merchant);
END
$$;
