"""Signatures of certificates: signing, and the check that needs neither NumPy nor torch."""

import base64
import json
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from karez.core.receipts import fingerprint
from karez.vault.signing import CloudKey

FORM = "karez.migration.certificate/1"
"""The form of a certificate; its name is older than the room."""


def sign(body: dict[str, Any], key_file: Path) -> dict[str, Any]:
    """Add a key's fingerprint and signature to a body; a missing key file is created."""
    key_file.parent.mkdir(parents=True, exist_ok=True)
    key = CloudKey(key_file)
    key_file.with_suffix(".pub").write_text(key.public.hex() + "\n")
    named = {**body, "key": fingerprint(key.public), "public": key.public.hex()}
    return {**named, "signature": key.seal(message(named))}


def check(signed: dict[str, Any], public: bytes | None = None) -> str:
    """Why a certificate is invalid; empty: the certificate is valid.

    With `public` it must be of that key; without, only that nothing was changed since it was made.
    """
    body = {name: value for name, value in signed.items() if name != "signature"}
    if signed.get("form") != FORM:
        return "it is no certificate of this form"
    try:
        own = bytes.fromhex(str(signed.get("public")))
        if public is not None and own != public:
            return "it was signed with another key"
        Ed25519PublicKey.from_public_bytes(own).verify(
            base64.b64decode(str(signed.get("signature"))), message(body)
        )
    except (ValueError, InvalidSignature):
        return "its signature does not fit: it was changed"
    return "" if signed.get("key") == fingerprint(own) else "its key is not the one it names"


def message(body: dict[str, Any]) -> bytes:
    """The bytes that are signed: JSON with sorted names and no spaces."""
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
