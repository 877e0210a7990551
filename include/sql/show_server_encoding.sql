-- Ids hold any Unicode: only a UTF8 database keeps them unchanged.
SELECT current_setting('server_encoding');
