-- The readings of some dates, whoever's they are, so that nothing above an accepted value is demanded of its row any more.
-- Parameters: dates (date[]). Returns what finds a row again in this transaction, date, keys and counters.
SELECT ctid::text, date, keys, counters
FROM usage_reading
WHERE date = ANY (%(dates)s::date[])
FOR UPDATE;
