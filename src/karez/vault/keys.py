"""API keys, sealed secrets, and files that only their owner can read."""

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from karez.core.errors import BrokenArtifact

PREFIX = "kz"
_NONCE_BYTES = 12
"""AES-GCM's nonce length. Source: NIST SP 800-38D section 8.2.1."""


def derived(key: bytes, purpose: str) -> str:
    """A key for one purpose, from which neither the key nor one for another follows."""
    return hmac.new(key, f"karez/{purpose}".encode(), hashlib.sha256).hexdigest()


class Pepper:
    """The cloud's own secret: keys are stored only as keyed hashes, secrets only sealed by it."""

    def __init__(self, path: Path) -> None:
        """Read the secret from a file, or create the file with mode 0600."""
        self._bytes = read_or_make(path)

    def digest(self, secret: str) -> str:
        """Return the keyed hash of a key's secret, which is all that the store keeps."""
        return hmac.new(self._bytes, secret.encode(), hashlib.sha256).hexdigest()

    def matches(self, secret: str, digest: str) -> bool:
        """Whether a secret belongs to a digest, in constant time."""
        return hmac.compare_digest(self.digest(secret), digest)

    def seal(self, name: str, text: str) -> bytes:
        """Encrypt a secret, bound to its name."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + AESGCM(self._key()).encrypt(nonce, text.encode(), name.encode())

    def open(self, name: str, sealed: bytes) -> str:
        """Decrypt a secret. Raises BrokenArtifact if the bytes were altered or renamed."""
        nonce, body = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            return AESGCM(self._key()).decrypt(nonce, body, name.encode()).decode()
        except InvalidTag as error:
            problem = "it was sealed by another cloud or altered"
            raise BrokenArtifact(name=f"secret {name}", problem=problem) from error

    def _key(self) -> bytes:
        return hashlib.sha256(b"seal" + self._bytes).digest()


def make_key() -> tuple[str, str]:
    """Create a key: (id, secret). The user is shown their `full_key` once."""
    return secrets.token_hex(6), secrets.token_urlsafe(24)


def full_key(ident: str, secret: str) -> str:
    """Return the text of a key, which the user sends."""
    return f"{PREFIX}_{ident}_{secret}"


def split_key(text: str) -> tuple[str, str] | None:
    """Split a key's text into (id, secret); None if the text is not a key."""
    parts = text.split("_", 2)
    if len(parts) != 3 or parts[0] != PREFIX or not parts[1] or not parts[2]:
        return None
    return parts[1], parts[2]


def read_or_make(path: Path) -> bytes:
    """Read 32 random bytes from a file of mode 0600, which the first call creates.

    Several processes may call it at once.
    """
    if not path.exists():
        fresh = _private(path, secrets.token_hex(32))
        try:
            os.link(fresh, path)
        except FileExistsError:
            pass  # another process was first: its file counts
        finally:
            fresh.unlink()
    return bytes.fromhex(path.read_text().strip())


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, at every moment of the writing."""
    _private(path, text).replace(path)


def write_public(path: Path, text: str) -> None:
    """Write a file that everybody may read, with mode 0644."""
    _private(path, text).replace(path)
    path.chmod(0o644)


def _private(path: Path, text: str) -> Path:
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(text)
    return fresh
