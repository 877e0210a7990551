-- A temporary table has no statistics until asked; without them the joins below are planned for a guess.
ANALYZE pg_temp.usage_staged;
