"""Turns what a DAG run is asked for into what the engine takes: dates, merchants, a run."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

from airflow.providers.common.compat.sdk import Context

from merchant_usage.errors import RequestRefused, SettingsError
from merchant_usage.model.keys import why_no_merchant_id
from merchant_usage.model.run import Run
from merchant_usage.orchestration.dag_runs import DagRunFacts
from merchant_usage.settings import Settings
from merchant_usage.text import shown

PARAM_NAMES: Final = ("from_date", "to_date", "merchant_ids", "dry_run")


def requested_run(context: Context, settings: Settings, now: dt.datetime) -> Run:
    """What this DAG run is asked to do: its Params if they name dates, else its data interval, else the day before it.

    Raises:
        RequestRefused: a Param that cannot be used.
    """
    params: Any = context["params"]
    if unknown := sorted(set(params) - set(PARAM_NAMES)):
        # Passing over a misspelt merchant_ids or dry_run would do more than was asked for.
        raise RequestRefused(
            f"There is no Param {', '.join(map(repr, unknown))}; a run takes {', '.join(PARAM_NAMES)}."
        )
    asked = DagRunFacts.of(context["dag_run"], params)
    try:
        dates = asked.dates(settings, now)
    except SettingsError as error:
        raise RequestRefused(str(error)) from None
    merchants = _merchants(params.get("merchant_ids"))
    # Nobody, of a run of the scheduler; not known before 3.1.
    person = getattr(context["dag_run"], "triggering_user_name", None)
    return Run(asked.run_id or "", asked.run_type, dates, now, merchants, asked.own_interval, person)


def _merchants(given: Any) -> tuple[str, ...] | None:
    if given is None or given == []:
        return None
    takes = 'it takes a list of merchant ids, e.g. ["acme"], or [] for all'
    if not isinstance(given, list | tuple) or not all(isinstance(merchant, str) for merchant in given):
        raise RequestRefused(f"merchant_ids={given!r} cannot be used; {takes}.")
    # A blank line in the trigger form is an empty id here.
    merchants = sorted({merchant for merchant in given if merchant})
    if not merchants:
        raise RequestRefused(f"merchant_ids={given!r} names no merchant; {takes}.")
    for merchant in merchants:
        if problem := why_no_merchant_id(merchant):
            raise RequestRefused(f"merchant_ids: {shown(merchant)} {problem}; {takes}.")
    return tuple(merchants)
