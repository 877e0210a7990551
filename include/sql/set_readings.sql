-- Demand less of the rows of a page that lock_readings has locked. Parameters: place (what it calls the row), counters.
UPDATE usage_reading SET counters = %(counters)s WHERE ctid = %(place)s::tid;
