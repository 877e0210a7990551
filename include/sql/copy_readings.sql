-- Keep until verification what the rows of live dates must hold at least: a row a page of keys.
COPY usage_reading (run_id, attempt, batch, date, page, keys, counters, number) FROM STDIN;
