-- Whether queries of the current transaction may be planned with nested loops. Parameters: allowed (text: on, off).
SELECT set_config('enable_nestloop', %(allowed)s, true);
