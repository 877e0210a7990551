-- How the two sides of a connection write to each other, whatever the role has set. Names hold any Unicode, a moment written in
-- another DateStyle than ISO may come without its offset, and the driver doubles a backslash of a key by the last of these.
-- For the session, because also what is asked outside of a transaction is answered so. These four are what a pooler in
-- transaction mode knows of each of its clients, and sets anew: none of them reaches another client. Nothing else goes here.
SELECT set_config('client_encoding', 'UTF8', false),
       set_config('DateStyle', 'ISO, YMD', false),
       set_config('TimeZone', 'UTC', false),
       set_config('standard_conforming_strings', 'on', false);
