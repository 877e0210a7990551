-- Which ways to go about a query PostgreSQL may choose in the current transaction. Parameters: seqscan, nestloop (text: on, off).
SELECT set_config('enable_seqscan', %(seqscan)s, true), set_config('enable_nestloop', %(nestloop)s, true);
