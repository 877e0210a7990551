"""Bad news on its way out: from what Airflow knows of a run to Slack and PagerDuty."""
