"""What people can see of a date in PostgreSQL, read without the engine's own code; and backups of all of it."""

from __future__ import annotations

import datetime as dt

from psycopg import Connection

Backup = dict[str, bytes]


def last_word(conn: Connection, date: dt.date) -> str | None:
    """The newest verdict on a date that was over and settled.

    That its keys have expired since says nothing of it, as long as the sum is still one that was verified. Runs of some
    merchants can only refute it. A person's decision answers a mismatch in which nothing was missing.
    """
    words: list[tuple[str, int]] = conn.execute(
        "SELECT verdict, postgres_total FROM usage_run AS r WHERE usage_date = %s AND settled AND verdict IS NOT NULL"
        " AND (merchant_ids IS NULL OR verdict = 'mismatch')"
        " AND (verdict = 'mismatch' AND complete AND EXISTS ("
        "SELECT FROM usage_decision AS c JOIN usage_run AS x USING (usage_date)"
        " WHERE c.usage_date = r.usage_date AND c.decided_at > r.started_at AND x.started_at > c.decided_at"
        " AND x.settled AND x.merchant_ids IS NULL AND x.verdict IS NOT NULL)) IS NOT TRUE"
        " ORDER BY started_at, finished_at, attempt",
        [date],
    ).fetchall()
    verified = {total for word, total in words if word == "verified"}
    judged = [word for word, total in words if word != "empty" and (word != "source_expired" or total not in verified)]
    return next(reversed(judged or [word for word, _ in words]), None)


def is_sealed(conn: Connection, date: dt.date) -> bool:
    """Whether the last word on a date is `verified`, and nothing of it waits for a decision."""
    waits = (
        "SELECT FROM usage_dead_letter WHERE usage_date = %s AND resolved_at IS NULL AND reason = 'counter_regressed'"
    )
    return last_word(conn, date) == "verified" and not _exists(conn, waits, date)


def is_told(conn: Connection, date: dt.date) -> bool:
    """Whether people can see that something is, or was, the matter with a date."""
    judged_wrong = last_word(conn, date) not in {"verified", "empty", None}
    open_letters = "SELECT FROM usage_dead_letter WHERE usage_date = %s AND resolved_at IS NULL"
    return judged_wrong or _exists(conn, open_letters, date) or is_decided(conn, date)


def is_decided(conn: Connection, date: dt.date) -> bool:
    """Whether a person decided the date, or a counter of it."""
    decided = "SELECT FROM usage_dead_letter WHERE usage_date = %s AND decision IS NOT NULL"
    return _exists(conn, decided, date) or _exists(conn, "SELECT FROM usage_decision WHERE usage_date = %s", date)


def _exists(conn: Connection, query: str, date: dt.date) -> bool:
    return conn.execute(f"SELECT EXISTS ({query})", [date]).fetchone() == (True,)


def back_up(conn: Connection) -> Backup:
    """All tables, as pg_dump would write them."""
    backup = {}
    for name in _tables(conn):
        with conn.cursor().copy(f"COPY (SELECT * FROM {name}) TO STDOUT (FORMAT binary)".encode()) as copy:  # noqa: S608 - a name of ours
            backup[name] = b"".join(copy)
    return backup


def restore(conn: Connection, backup: Backup) -> None:
    """Everything as it was then."""
    with conn.transaction():
        # A backup is laid under the triggers, as pg_restore does it.
        conn.execute("SET LOCAL session_replication_role = replica")
        conn.execute(f"TRUNCATE {', '.join(_tables(conn))}".encode())
        for name, data in backup.items():
            with conn.cursor().copy(f"COPY {name} FROM STDIN (FORMAT binary)".encode()) as copy:
                copy.write(data)


def _tables(conn: Connection) -> list[str]:
    """Ours; of one that is partitioned the whole."""
    rows = conn.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
        " AND NOT relispartition AND relname <> 'unparted' ORDER BY relname"
    )
    return [name for (name,) in rows]
