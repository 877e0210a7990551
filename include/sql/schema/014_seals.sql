-- What was proven of each date, sealed: the root of a Merkle tree over its rows, and a chain from seal to seal. A date that changes
-- gets the next version, and nothing is changed or deleted. `seal_number` counts from 1 without gaps: the order of the chain.
-- docs/reference/seals.md says which bytes are hashed.
CREATE TABLE IF NOT EXISTS usage_seal (
    seal_number bigint      PRIMARY KEY CHECK (seal_number > 0),
    usage_date  date        NOT NULL,
    version     integer     NOT NULL CHECK (version > 0),
    sealed_at   timestamptz NOT NULL,
    run_id      text        NOT NULL,
    counters    bigint      NOT NULL,
    total       numeric     NOT NULL,
    root        bytea       NOT NULL,
    chain       bytea       NOT NULL,
    signature   bytea,
    reason      text        NOT NULL,
    UNIQUE (usage_date, version)
);

-- The leaves of each tree, a thousand merchants a row in the order of the tree, with what each merchant had in all: they say which
-- merchants changed, where the root can only say that something did.
CREATE TABLE IF NOT EXISTS usage_seal_page (
    usage_date   date      NOT NULL,
    version      integer   NOT NULL,
    page         bigint    NOT NULL,
    merchant_ids text[]    NOT NULL,
    totals       numeric[] NOT NULL,
    leaves       bytea     NOT NULL,
    PRIMARY KEY (usage_date, version, page)
);

-- This keeps slips of the hand away. Whoever owns the tables can take it away first, and the chain shows what was done then.
-- CREATE TRIGGER locks the table even when it is there, and a function that is there may be another's: look first.
DO $$
DECLARE
    guarded text;
BEGIN
    IF to_regproc('usage_seal_is_append_only') IS NULL THEN
        CREATE FUNCTION usage_seal_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $body$
        BEGIN
            RAISE EXCEPTION '% is append only: % is refused', TG_TABLE_NAME, TG_OP;
        END
        $body$;
    END IF;
    FOREACH guarded IN ARRAY ARRAY['usage_seal', 'usage_seal_page'] LOOP
        IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = guarded::regclass AND tgname = 'append_only') THEN
            EXECUTE format(
                'CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON %I '
                'FOR EACH STATEMENT EXECUTE FUNCTION usage_seal_is_append_only()', guarded
            );
        END IF;
    END LOOP;
END
$$;
