"""Redis, and nothing else: how counters are found and read."""
