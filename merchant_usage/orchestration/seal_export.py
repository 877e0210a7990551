"""Writes each seal down outside of the database: where `USAGE_SEAL_EXPORT` says, a file a seal."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

from airflow.providers.common.compat.sdk import ObjectStoragePath
from psycopg import Connection

from merchant_usage.alerts import store
from merchant_usage.alerts.alert import Alert, AlertKind
from merchant_usage.alerts.register import Notification
from merchant_usage.log import Log
from merchant_usage.model.run import Plan
from merchant_usage.model.seal import Seal
from merchant_usage.settings import Settings
from merchant_usage.sink import seals
from merchant_usage.sink.transactions import transaction

log = Log(__name__)

_KEY: Final = "seal_not_exported"


def export_seals(conn: Connection, made: Iterable[Seal], plan: Plan, settings: Settings) -> list[str]:
    """Write the seals of a run; in the first run of a day also those of `USAGE_AUDIT_DAYS` that are not there.

    A file that is there is never written again. Returns what went wrong, a sentence each: it fails no run.
    """
    if not settings.seal_export:
        return []
    try:
        problems = [*_export(_chosen(conn, made, plan, settings), ObjectStoragePath(settings.seal_export))]
    except Exception as error:  # noqa: BLE001 - a store is any library, and its address may hold a secret
        problems = [f"USAGE_SEAL_EXPORT cannot be written ({type(error).__name__}); the first run of a day tries again"]
    for problem in problems:
        log.warning(problem)
    return problems


def _chosen(conn: Connection, made: Iterable[Seal], plan: Plan, settings: Settings) -> list[Seal]:
    if not plan.is_sweep:
        return [*made]
    since = plan.now - dt.timedelta(days=settings.audit_days)
    with transaction(conn):
        return [seal for seal in seals.every(conn) if seal.sealed_at >= since]


def _export(chosen: Iterable[Seal], folder: Any) -> Iterator[str]:
    folder.mkdir(parents=True, exist_ok=True)
    for seal in chosen:
        file = folder / f"seal_{seal.number:012d}_{seal.date}_v{seal.version}.json"
        text = json.dumps(seal.to_json()) + "\n"
        if not file.exists():
            file.write_text(text, encoding="utf-8")
        elif file.read_text(encoding="utf-8") != text:
            yield f"{seal.name} was made anew: {file.name} in USAGE_SEAL_EXPORT holds another one, and stays so"


def alert_of_export(conn: Connection, problems: list[str], run_id: str, now: dt.datetime) -> list[Notification]:
    """What there is to tell of it: once, as long as it goes on.

    Raises:
        psycopg.Error: PostgreSQL does not answer.
    """
    with store.register(conn, [_KEY], now) as register:
        if not problems:
            register.end_others(AlertKind.SEAL_NOT_EXPORTED, (), now)
            return []
        alert = Alert(
            AlertKind.SEAL_NOT_EXPORTED,
            _KEY,
            "Seals were not written down outside of PostgreSQL",
            "\n".join(problems[:10]),
            advice="See whether the store that USAGE_SEAL_EXPORT names can be written to. The dates themselves are "
            "verified and sealed.",
            run_id=run_id,
        )
        return [one] if (one := register.raise_alert(alert, now)) else []
