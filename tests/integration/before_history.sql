-- All tables as version 0.1.0 had them before there was hourly history, with a row or more in each: what pg_dump 15 wrote
-- (--inserts --no-owner --no-privileges), without its comments.
SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

SET default_tablespace = '';

CREATE TABLE public.merchant_usage (
    merchant_id text NOT NULL COLLATE pg_catalog."C",
    date date NOT NULL,
    metric_type text NOT NULL COLLATE pg_catalog."C",
    metric_value bigint NOT NULL,
    carried bigint DEFAULT 0 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL
)
WITH (fillfactor='80');

CREATE TABLE public.usage_absence (
    date date NOT NULL,
    merchant_id text NOT NULL COLLATE pg_catalog."C",
    metric_type text NOT NULL COLLATE pg_catalog."C",
    seen_at timestamp with time zone NOT NULL
);

CREATE TABLE public.usage_alert (
    alert_key text NOT NULL,
    kind text NOT NULL,
    run_id text,
    raised_at timestamp with time zone NOT NULL,
    told boolean NOT NULL,
    resolved_at timestamp with time zone
);

CREATE TABLE public.usage_dead_letter (
    id bigint NOT NULL,
    redis_key bytea NOT NULL,
    reason text NOT NULL,
    detail text NOT NULL,
    usage_date date,
    first_seen_at timestamp with time zone DEFAULT now() NOT NULL,
    last_seen_at timestamp with time zone DEFAULT now() NOT NULL,
    attempts integer DEFAULT 1 NOT NULL,
    resolved_at timestamp with time zone,
    redis_value bigint,
    postgres_value bigint,
    decision text,
    told_at timestamp with time zone,
    redis_key_sha256 bytea,
    CONSTRAINT usage_dead_letter_decision_check CHECK ((decision = ANY (ARRAY['keep'::text, 'accept'::text, 'carry'::text])))
);

ALTER TABLE public.usage_dead_letter ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.usage_dead_letter_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.usage_decision (
    id bigint NOT NULL,
    redis_key bytea,
    usage_date date,
    decision text NOT NULL,
    decided_by text NOT NULL,
    decided_at timestamp with time zone DEFAULT now() NOT NULL,
    reason text,
    approved_by text,
    approved_at timestamp with time zone,
    value_before bigint,
    value_after bigint,
    CONSTRAINT usage_decision_decision_check CHECK ((decision = ANY (ARRAY['keep'::text, 'accept'::text, 'carry'::text])))
);

ALTER TABLE public.usage_decision ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.usage_decision_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.usage_deletion (
    merchant_id text NOT NULL COLLATE pg_catalog."C",
    date date NOT NULL,
    metric_type text NOT NULL COLLATE pg_catalog."C",
    value bigint NOT NULL,
    begun_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE UNLOGGED TABLE public.usage_reading (
    run_id text NOT NULL,
    date date NOT NULL,
    read_at timestamp with time zone DEFAULT now() NOT NULL,
    attempt integer DEFAULT 1 NOT NULL,
    batch integer DEFAULT 0 NOT NULL,
    page bytea NOT NULL,
    keys text NOT NULL,
    counters text NOT NULL,
    number integer NOT NULL
);

CREATE TABLE public.usage_run (
    run_id text NOT NULL,
    usage_date date NOT NULL,
    run_type text NOT NULL,
    merchant_ids text[],
    settled boolean NOT NULL,
    started_at timestamp with time zone NOT NULL,
    finished_at timestamp with time zone,
    keys_scanned bigint DEFAULT 0 NOT NULL,
    merchants bigint DEFAULT 0 NOT NULL,
    rows_inserted bigint DEFAULT 0 NOT NULL,
    rows_updated bigint DEFAULT 0 NOT NULL,
    rows_unchanged bigint DEFAULT 0 NOT NULL,
    dead_letters bigint DEFAULT 0 NOT NULL,
    regressed bigint DEFAULT 0 NOT NULL,
    redis_total numeric,
    postgres_total numeric,
    verdict text,
    error text,
    attempt integer DEFAULT 1 NOT NULL,
    requested_by text,
    complete boolean DEFAULT false NOT NULL,
    key_prefix text,
    timezone text,
    settle_hours integer,
    retention_days integer,
    CONSTRAINT usage_run_verdict_check CHECK ((verdict = ANY (ARRAY['verified'::text, 'mismatch'::text, 'source_expired'::text, 'empty'::text, 'not_proven'::text, 'incomplete'::text])))
);

CREATE TABLE public.usage_source (
    server text NOT NULL,
    redis_run_id text NOT NULL,
    evicted_keys bigint NOT NULL,
    seen_at timestamp with time zone NOT NULL
);

INSERT INTO public.merchant_usage VALUES ('acme', '2026-11-23', 'queries', 1200, 0, '2026-11-23 01:00:20+00', '2026-11-24 00:00:20+00');
INSERT INTO public.merchant_usage VALUES ('acme', '2026-11-24', 'queries', 300, 0, '2026-11-24 01:00:20+00', '2026-11-24 12:00:20+00');
INSERT INTO public.merchant_usage VALUES ('b:c é', '2026-11-24', 'a metric', 9223372036854775807, 9223372036854775800, '2026-11-24 01:00:20+00', '2026-11-24 11:00:20+00');
INSERT INTO public.merchant_usage VALUES ('zero', '2026-11-24', 'queries', 0, 0, '2026-11-24 01:00:20+00', '2026-11-24 01:00:20+00');

INSERT INTO public.usage_absence VALUES ('2026-11-24', 'acme', 'searches', '2026-11-24 10:00:00+00');

INSERT INTO public.usage_alert VALUES ('failed:a', 'failed', 'a', '2026-11-24 00:00:00+00', true, NULL);

INSERT INTO public.usage_deletion VALUES ('acme', '2026-11-15', 'queries', 5, '2026-11-24 12:00:00+00');

INSERT INTO public.usage_dead_letter OVERRIDING SYSTEM VALUE VALUES (1, '\x75736167653a61636d653a323032362d31312d32343a626164', 'not_an_integer', 'x', '2026-11-24', '2026-11-27 19:14:52.32868+00', '2026-11-27 19:14:52.32868+00', 1, NULL, NULL, NULL, NULL, NULL, NULL);

INSERT INTO public.usage_decision OVERRIDING SYSTEM VALUE VALUES (1, '\x75736167653a61636d653a323032362d31312d32333a71756572696573', '2026-11-23', 'keep', 'alice', '2026-11-27 19:14:52.32868+00', 'as agreed', NULL, NULL, 1200, 1200);

INSERT INTO public.usage_reading VALUES ('a run', '2026-11-24', '2026-11-27 19:14:52.32868+00', 1, 0, '\x01', '[]', '', 0);

INSERT INTO public.usage_run VALUES ('scheduled__2026-11-24T02:00:00+00:00', '2026-11-23', 'scheduled', NULL, true, '2026-11-24 03:00:20+00', '2026-11-24 03:00:25+00', 1, 1, 0, 0, 0, 0, 0, 1200, 1200, 'verified', NULL, 1, NULL, true, 'usage', 'UTC', 2, 7);

INSERT INTO public.usage_source VALUES ('127.0.0.1:6379', 'abc', 0, '2026-11-24 12:00:00+00');

SELECT pg_catalog.setval('public.usage_dead_letter_id_seq', 1, true);

SELECT pg_catalog.setval('public.usage_decision_id_seq', 1, true);

ALTER TABLE ONLY public.merchant_usage
    ADD CONSTRAINT merchant_usage_pkey PRIMARY KEY (merchant_id, date, metric_type);

ALTER TABLE ONLY public.usage_absence
    ADD CONSTRAINT usage_absence_pkey PRIMARY KEY (date, merchant_id, metric_type);

ALTER TABLE ONLY public.usage_alert
    ADD CONSTRAINT usage_alert_pkey PRIMARY KEY (alert_key);

ALTER TABLE ONLY public.usage_dead_letter
    ADD CONSTRAINT usage_dead_letter_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.usage_decision
    ADD CONSTRAINT usage_decision_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.usage_deletion
    ADD CONSTRAINT usage_deletion_pkey PRIMARY KEY (merchant_id, date, metric_type);

ALTER TABLE ONLY public.usage_run
    ADD CONSTRAINT usage_run_pkey PRIMARY KEY (run_id, attempt, usage_date);

ALTER TABLE ONLY public.usage_source
    ADD CONSTRAINT usage_source_pkey PRIMARY KEY (server);

CREATE INDEX merchant_usage_date ON public.merchant_usage USING brin (date) WITH (pages_per_range='32', autosummarize='on');

CREATE INDEX usage_dead_letter_date ON public.usage_dead_letter USING btree (usage_date) WHERE (resolved_at IS NULL);

CREATE INDEX usage_dead_letter_decided ON public.usage_dead_letter USING btree (sha256(redis_key)) WHERE ((reason = 'counter_regressed'::text) AND (decision IS NOT NULL));

CREATE UNIQUE INDEX usage_dead_letter_open ON public.usage_dead_letter USING btree (COALESCE(redis_key_sha256, sha256(redis_key)), reason) WHERE (resolved_at IS NULL);

CREATE INDEX usage_dead_letter_open_id ON public.usage_dead_letter USING btree (id) WHERE (resolved_at IS NULL);

CREATE INDEX usage_dead_letter_resolved ON public.usage_dead_letter USING btree (resolved_at) WHERE ((resolved_at IS NOT NULL) AND (decision IS NULL));

CREATE INDEX usage_decision_date ON public.usage_decision USING btree (usage_date);

CREATE INDEX usage_reading_attempt ON public.usage_reading USING btree (run_id, attempt, batch);

CREATE INDEX usage_run_usage_date ON public.usage_run USING btree (usage_date, started_at);
