-- Whether the value, or what is carried, may be NULL, in a table that the application made. Of the catalog alone: a look at the rows would lock every
-- month of a partitioned table.
SELECT 1
FROM pg_attribute
WHERE attrelid = 'merchant_usage'::regclass
  AND attname IN ('metric_value', 'carried')
  AND NOT attnotnull;
