"""Bad news, without Airflow: what there is to tell, whether it is told, and how it reads in Slack."""
