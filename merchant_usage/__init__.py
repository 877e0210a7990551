"""Moves usage counters from Redis to PostgreSQL and proves it. Airflow is in `orchestration` alone.

Functions take a Redis client and a PostgreSQL connection, never a connection id.
"""
