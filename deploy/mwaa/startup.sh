#!/bin/sh
# MWAA's startup script: the only place there for variables that are no option of Airflow. It is read by every component.
export USAGE_START_DATE='2026-11-01'
# MWAA's own secrets backend (AWS Secrets Manager, airflow/connections/usage_redis) does as well, and keeps passwords out of here.
export AIRFLOW_CONN_USAGE_REDIS='{"conn_type": "redis", "host": "redis.internal", "port": 6379, "password": "..."}'
export AIRFLOW_CONN_USAGE_POSTGRES='{"conn_type": "postgres", "host": "pg.internal", "port": 5432, "login": "usage", "password": "...", "schema": "billing"}'
