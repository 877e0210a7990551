"""From nothing to verified runs in a real Airflow that people can look at: `python -m local.demo`."""
