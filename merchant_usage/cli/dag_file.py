"""Writes the DAG files that belong to this version, so that all change at once."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Final

from merchant_usage import __version__
from merchant_usage.cli.output import say
from merchant_usage.errors import NAME, SettingsError
from merchant_usage.settings import DAG_ID, DECISIONS_DAG_ID

_PACKAGE: Final = Path(__file__).parents[1]
# In the package in a wheel, beside it in a checkout and in an image.
_DAGS: Final = (_PACKAGE if (_PACKAGE / "dags").is_dir() else _PACKAGE.parent) / "dags"
_COMMAND: Final = f"{NAME} dag-file"
_DIGEST: Final = ". SHA-256 of the rest: "


def dag_file(options: argparse.Namespace) -> int:
    """Show the DAG file, or write it.

    Raises:
        SettingsError: the path cannot be written, or is a file that is not ours to replace.
    """
    file = f"{DECISIONS_DAG_ID if options.decisions else DAG_ID}.py"
    source = (_DAGS / file).read_bytes()
    text = _with_head(source)
    if options.path is None:
        say(text.decode().removesuffix("\n"))
        return 0
    given = Path(options.path)
    target = given / file if given.is_dir() else given
    try:
        before = target.read_bytes() if target.exists() else None
        if before == text:
            say(f"{target} is that of {__version__} already")
            return 0
        if not (before is None or options.force or before == source or _is_as_written(before)):
            raise SettingsError(
                f"{target} was not written by {_COMMAND}, or was changed since, so it is left as it is; "
                "--force replaces it."
            )
        _replace(target, text)
    except OSError as error:
        raise SettingsError(
            f"{target} cannot be written: {error.strerror}. It takes a file, or a folder that is there."
        ) from None
    say(f"Wrote {target}")
    return 0


def _with_head(source: bytes) -> bytes:
    """With a first line that says which version has written it, and what."""
    digest = hashlib.sha256(source).hexdigest()
    return f"# {NAME} {__version__} has written this file: {_COMMAND}{_DIGEST}{digest}\n".encode() + source


def _is_as_written(text: bytes) -> bool:
    """Whether some version of ours has written this, and nobody has changed it since."""
    head, _, rest = text.partition(b"\n")
    begin, _, digest = head.partition(_DIGEST.encode())
    return (
        begin.startswith(f"# {NAME} ".encode())
        and digest.decode("ascii", "replace") == hashlib.sha256(rest).hexdigest()
    )


def _replace(target: Path, text: bytes) -> None:
    """At once: Airflow may read the file at any moment, and must not find half of it."""
    new = target.with_name(f".{target.name}.new")
    try:
        new.write_bytes(text)
        new.replace(target)
    finally:
        new.unlink(missing_ok=True)
