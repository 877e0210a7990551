"""What measures speed, beside what it is measured against. Quote ratios of one run, never seconds of two."""
