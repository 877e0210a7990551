"""Redis: how counters are found and read."""
