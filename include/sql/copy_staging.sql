-- COPY is the fastest way in: 100 000 rows in the time of 2 000 single transactions.
COPY pg_temp.usage_staged (merchant_id, date, metric_type, value) FROM STDIN;
