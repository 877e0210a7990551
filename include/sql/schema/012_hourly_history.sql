-- How counters grew: for each change of a row of merchant_usage what it held before, and since when. Nothing is written when a
-- row is made: the row itself is always the newest point, so that the differences between points add up to its value,
-- whatever became of single points. Texts are compared as those of merchant_usage are, which the application may have made.
-- By weeks, so that a week is forgotten by dropping a table. What no week has room for goes into `rest`: a date without a
-- partition keeps nobody from being billed.
DO $$
DECLARE
    of_merchant text;
    of_metric   text;
BEGIN
    IF to_regclass('usage_hourly_history') IS NULL THEN
        SELECT max(named) FILTER (WHERE attname = 'merchant_id'), max(named) FILTER (WHERE attname = 'metric_type')
        INTO STRICT of_merchant, of_metric
        FROM (
            SELECT a.attname, format('%I.%I', n.nspname, c.collname) AS named
            FROM pg_attribute a
            JOIN pg_collation c ON c.oid = a.attcollation
            JOIN pg_namespace n ON n.oid = c.collnamespace
            WHERE a.attrelid = 'merchant_usage'::regclass
        ) AS collations;
        EXECUTE format(
            'CREATE TABLE usage_hourly_history (
                held_since   timestamptz     NOT NULL,
                metric_value bigint          NOT NULL,
                date         date            NOT NULL,
                -- What ended it was no counting: a person, or a rule, decided what the row holds.
                correction   boolean         NOT NULL,
                merchant_id  text COLLATE %s NOT NULL,
                metric_type  text COLLATE %s NOT NULL,
                PRIMARY KEY (merchant_id, date, metric_type, held_since)
            ) PARTITION BY RANGE (date)', of_merchant, of_metric);
        -- Verification reads whole days, and the key starts with the merchant. They arrive day by day.
        CREATE INDEX usage_hourly_history_date ON usage_hourly_history USING brin (date)
            WITH (pages_per_range = 32, autosummarize = on);
        CREATE TABLE usage_hourly_history_rest PARTITION OF usage_hourly_history DEFAULT;
    END IF;
END
$$;

-- Make the weeks to come, and forget those that are over before `first_kept`. With its owner's rights, so that the pipeline's role
-- needs none to make and drop tables; whoever may call it can take away nothing that is younger than a week.
-- Returns how many weeks were dropped, and how many rows that no week had room for.
CREATE OR REPLACE FUNCTION usage_keep_hourly_history(first_kept date, OUT weeks bigint, OUT rows bigint)
LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    -- Mondays. What Redis has is younger, unless it keeps its keys for long.
    first_made constant date := date_trunc('week', (current_date - 35)::timestamp)::date;
    last_made  constant date := date_trunc('week', (current_date + 14)::timestamp)::date;
    kept       constant date := least(first_kept, current_date - 7);
    monday     date;
    part       text;
    dropped    text[];
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('usage_hourly_history'));
    SELECT coalesce(array_agg(c.relname ORDER BY c.relname), '{}')
    INTO STRICT dropped
    FROM pg_inherits i
    JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'usage_hourly_history'::regclass
      AND c.relname ~ '^usage_hourly_history_\d{8}$'
      AND to_date(right(c.relname, 8), 'YYYYMMDD') + 7 <= kept;
    -- Locks are taken as writers take them, the whole before its parts: else one would wait for the other.
    IF cardinality(dropped) > 0 THEN
        LOCK TABLE ONLY usage_hourly_history IN ACCESS EXCLUSIVE MODE;
    END IF;
    FOREACH part IN ARRAY dropped LOOP
        EXECUTE format('DROP TABLE %I', part);
    END LOOP;
    weeks := cardinality(dropped);
    DELETE FROM usage_hourly_history_rest WHERE date < kept;
    GET DIAGNOSTICS rows = ROW_COUNT;
    FOR monday IN SELECT first_made + 7 * n FROM generate_series(0, (last_made - first_made) / 7) AS n LOOP
        part := 'usage_hourly_history_' || to_char(monday, 'YYYYMMDD');
        CONTINUE WHEN monday + 7 <= kept OR to_regclass(quote_ident(part)) IS NOT NULL;
        LOCK TABLE usage_hourly_history_rest IN ACCESS EXCLUSIVE MODE;
        EXECUTE format('CREATE TABLE %I (LIKE usage_hourly_history INCLUDING ALL)', part);
        EXECUTE format(
            'WITH moved AS (DELETE FROM usage_hourly_history_rest WHERE date >= $1 AND date < $1 + 7 RETURNING *)
             INSERT INTO %I SELECT * FROM moved', part) USING monday;
        -- Unlike PARTITION OF this does not hold up those who write into other weeks.
        EXECUTE format('ALTER TABLE usage_hourly_history ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                       part, to_char(monday, 'YYYY-MM-DD'), to_char(monday + 7, 'YYYY-MM-DD'));
    END LOOP;
END
$$;
REVOKE ALL ON FUNCTION usage_keep_hourly_history(date) FROM PUBLIC;

-- When a day begins somewhere; by UTC if PostgreSQL does not know that time zone, or nobody does.
CREATE OR REPLACE FUNCTION usage_midnight(day date, zone text) RETURNS timestamptz
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN day::timestamp AT TIME ZONE coalesce(zone, 'UTC');
EXCEPTION WHEN invalid_parameter_value THEN
    RETURN day::timestamp AT TIME ZONE 'UTC';
END
$$;

-- Whatever the caller's search_path finds under these names, theirs is that of the tables.
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION usage_keep_hourly_history(date) SET search_path = %I, pg_temp', current_schema());
    EXECUTE 'ALTER FUNCTION usage_midnight(date, text) SET search_path = pg_catalog, pg_temp';
END
$$;
SELECT usage_keep_hourly_history('-infinity');

-- What was counted between two readings, the first of them from the day's midnight on. An hour in which nothing was read lies within
-- a longer one; where nothing was counted there is no row, but for a counter that never counted anything.
-- The row of merchant_usage comes last whatever its time is, so that the sum is its value. Points whose row is gone are left out.
-- Conditions on merchant, date and metric reach both tables: all windows are parted by these.
-- Made again only where it stands on another merchant_usage than the one of today: readers are not held up.
DO $$
DECLARE
    of_merchant text;
    of_metric   text;
BEGIN
    IF EXISTS (
        SELECT FROM pg_rewrite w
        JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
        WHERE w.ev_class = to_regclass('merchant_usage_hourly') AND d.refobjid = 'merchant_usage'::regclass
    ) THEN
        RETURN;
    END IF;
    SELECT max(named) FILTER (WHERE attname = 'merchant_id'), max(named) FILTER (WHERE attname = 'metric_type')
    INTO STRICT of_merchant, of_metric
    FROM (
        SELECT a.attname, format('%I.%I', n.nspname, c.collname) AS named
        FROM pg_attribute a
        JOIN pg_collation c ON c.oid = a.attcollation
        JOIN pg_namespace n ON n.oid = c.collnamespace
        WHERE a.attrelid = 'merchant_usage'::regclass
    ) AS collations;
    EXECUTE format(
        'CREATE OR REPLACE VIEW merchant_usage_hourly AS
        SELECT merchant_id, date, metric_type, from_at, to_at, metric_value, correction
        FROM (
            SELECT merchant_id, date, metric_type,
                   coalesce(lag(until_at) OVER points, least(until_at, usage_midnight(date, (
                       SELECT r.timezone
                       FROM usage_run AS r
                       WHERE r.usage_date = point.date AND r.timezone IS NOT NULL
                       ORDER BY r.started_at DESC
                       LIMIT 1
                   )))) AS from_at,
                   until_at AS to_at,
                   held - coalesce(lag(held) OVER points, 0) AS metric_value,
                   coalesce(lag(correction) OVER points, false) AS correction,
                   lag(held) OVER points IS NULL AS is_first,
                   bool_or(is_row) OVER (PARTITION BY merchant_id, date, metric_type) AS has_row
            FROM (
                SELECT merchant_id, date, metric_type, metric_value AS held, updated_at AS until_at,
                       false AS correction, true AS is_row
                FROM merchant_usage
                UNION ALL
                SELECT merchant_id COLLATE %s, date, metric_type COLLATE %s, metric_value, held_since, correction, false
                FROM usage_hourly_history
            ) AS point
            WINDOW points AS (PARTITION BY merchant_id, date, metric_type ORDER BY is_row, until_at)
        ) AS curve
        WHERE has_row AND (is_first OR metric_value <> 0)', of_merchant, of_metric);
END
$$;
