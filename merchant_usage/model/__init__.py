"""Rules and values: keys, dates, batches."""
