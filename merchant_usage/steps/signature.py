"""Signs seals with an Ed25519 key, if there is one: who can but write into the database makes no new ones then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from merchant_usage.errors import SettingsError

Sign = Callable[[bytes], bytes]

_VARIABLE: Final = "USAGE_SEAL_KEY_FILE"
_TAKES: Final = "it takes a file with an Ed25519 private key in PEM, without a password"


def signer(path: str) -> Sign | None:
    """What signs the bytes of a chain; None without a key.

    Args:
        path: of the file with the private key; empty for none.

    Raises:
        SettingsError: the file is missing or holds no such key, or the library that signs is not installed.
    """
    if not path:
        return None
    try:
        # Airflow brings it; without Airflow it is an extra, and nobody else needs it.
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ImportError:
        raise SettingsError(
            f"{_VARIABLE}={path!r} needs the package `cryptography`: pip install 'merchant-usage[signature]'."
        ) from None
    try:
        key: Any = load_pem_private_key(Path(path).read_bytes(), password=None)
    except OSError as error:
        raise SettingsError(f"{_VARIABLE}={path!r} cannot be read ({error.strerror}); {_TAKES}.") from None
    except (TypeError, ValueError):
        raise SettingsError(f"{_VARIABLE}={path!r} is no key; {_TAKES}.") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise SettingsError(f"{_VARIABLE}={path!r} is a key of another kind; {_TAKES}.")
    return key.sign
