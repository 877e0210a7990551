"""Where the work meets Airflow: connections, schedule, the body of each task, bad news."""
