"""Moves usage counters from Redis to PostgreSQL and proves it.

    model          keys, dates, batches, verdicts: pure, no driver, no input or output
    source         Redis, and nothing else
    sink           PostgreSQL, and nothing else
    steps          what joins the two: scan, store, verify, preview, resolve, clean up
    alerts         what is worth telling, to whom it was told, how it reads
    pipeline       the steps in one process
    cli            the command `merchant-usage`
    orchestration  where all this meets Airflow, and the only room that imports it

Functions take a Redis client and a PostgreSQL connection, never a connection id.
"""

#: The version of all of it; the wheel takes it from here.
__version__ = "0.1.0"
