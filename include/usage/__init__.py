"""Moves usage counters from Redis to PostgreSQL and proves it. No Airflow in here.

Functions take a Redis client and a PostgreSQL connection, never a connection id.
"""
