"""What the DAGs stand on: the work itself (`usage`), its meeting with Airflow (`orchestration`), its SQL."""
