-- For the current transaction: dates become text as YYYY-MM-DD, whatever the server or user is set to; and cursors are planned
-- for all of their rows, not for the first.
SELECT set_config('DateStyle', 'ISO, YMD', true), set_config('cursor_tuple_fraction', '1', true);
