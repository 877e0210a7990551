"""Signs seals with an Ed25519 key, if there is one: who can but write into the database makes no new ones then."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from merchant_usage.errors import SettingsError
from merchant_usage.model.seal import Seal

Sign = Callable[[bytes], bytes]

_VARIABLE: Final = "USAGE_SEAL_KEY_FILE"
_TAKES: Final = "it takes a file with an Ed25519 private key in PEM, without a password"
_OPTION: Final = "--public-key"
_OPTION_TAKES: Final = "it takes a file with an Ed25519 public key in PEM"


def signer(path: str) -> Sign | None:
    """What signs the bytes of a chain; None without a key.

    Args:
        path: of the file with the private key; empty for none.

    Raises:
        SettingsError: the file is missing or holds no such key, or the library that signs is not installed.
    """
    sign: Sign | None = _private_key(path).sign if path else None
    return sign


class SignatureCheck:
    """Looks at the signatures of a chain, seal after seal, from the first on.

    A chain may have begun before there was a key. After the first seal that is signed each has to be, with a key that
    is known.

    Attributes:
        signed: seals so far that are signed with a known key.
        unsigned: those before the first that has a signature.
    """

    def __init__(self, public_keys: Sequence[Any], *, is_expected: bool) -> None:
        """With keys to verify by.

        Args:
            is_expected: somebody says that there are seals signed with them.
        """
        self.signed = 0
        self.unsigned = 0
        self._public_keys = public_keys
        self._is_expected = is_expected
        self._has_begun = False

    def problems_of(self, seal: Seal) -> Iterator[str]:
        """What is wrong of the signature of the next seal."""
        if seal.signature is None:
            if self._has_begun:
                yield f"{seal.name} is not signed, and seals before it are"
            else:
                self.unsigned += 1
            return
        self._has_begun = True
        if self._is_known(seal.signature, seal.chain):
            self.signed += 1
        else:
            yield f"{seal.name} is not signed with this key"

    def problems_of_all(self) -> Iterator[str]:
        """What is wrong once all seals were looked at."""
        if self._is_expected and self.unsigned and not self._has_begun:
            yield "no seal is signed"

    def _is_known(self, signature: bytes, chain: bytes) -> bool:
        from cryptography.exceptions import InvalidSignature

        for public_key in self._public_keys:
            try:
                public_key.verify(signature, chain)
            except InvalidSignature:
                continue
            return True
        return False


def signature_check(public_key_files: Sequence[str], key_file: str) -> SignatureCheck | None:
    """What looks at signatures; None without a key.

    Args:
        public_key_files: keys that somebody gives. There are several after a key was changed.
        key_file: else the one that seals are signed with; empty for none.

    Raises:
        SettingsError: a file is missing or holds no such key, or the library that verifies is not installed.
    """
    if public_key_files:
        return SignatureCheck([_public_key(path) for path in public_key_files], is_expected=True)
    return SignatureCheck([_private_key(key_file).public_key()], is_expected=False) if key_file else None


def _private_key(path: str) -> Any:
    return _key(path, _VARIABLE, _TAKES, is_private=True)


def _public_key(path: str) -> Any:
    return _key(path, _OPTION, _OPTION_TAKES, is_private=False)


def _key(path: str, name: str, takes: str, *, is_private: bool) -> Any:
    """The key in a file. `name`: where its path was given."""
    try:
        # Airflow brings it; without Airflow it is an extra, and nobody else needs it.
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
    except ImportError:
        raise SettingsError(
            f"{name}={path!r} needs the package `cryptography`: pip install 'merchant-usage[signature]'."
        ) from None
    try:
        pem = Path(path).read_bytes()
        key: Any = load_pem_private_key(pem, password=None) if is_private else load_pem_public_key(pem)
    except OSError as error:
        raise SettingsError(f"{name}={path!r} cannot be read ({error.strerror}); {takes}.") from None
    except (TypeError, ValueError):
        raise SettingsError(f"{name}={path!r} is no key; {takes}.") from None
    if not isinstance(key, Ed25519PrivateKey if is_private else Ed25519PublicKey):
        raise SettingsError(f"{name}={path!r} is a key of another kind; {takes}.")
    return key
