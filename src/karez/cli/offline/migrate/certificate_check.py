"""Check of a certificate, offline and with the base install."""

import json
from pathlib import Path

from karez.core.errors import BadRequest
from karez.equivalence import signed_certificate


def check(path: Path, key: str) -> tuple[str, bool]:
    """Check a certificate, which is of this signer where a key is given.

    Returns:
        A sentence about it, and whether it is known by whom it was signed.

    Raises:
        BadRequest: It is invalid, or of another signer.
    """
    try:
        signed = json.loads(path.read_text())
        public = bytes.fromhex(key) if key else None
        if not isinstance(signed, dict):
            raise ValueError("it is no object")
    except (OSError, ValueError, RecursionError) as error:
        raise BadRequest(problem=f"{path} cannot be read: {error}") from error
    problem = signed_certificate.check(signed, public)
    if problem:
        raise BadRequest(problem=f"{path}: {problem}")
    verdict = "lossless" if signed.get("lossless") is True else "not lossless"
    said = f"{path}: {verdict}, signed with {signed['key']} at {signed.get('made_at')}"
    if public is not None:
        return said, True
    return f"{said}; unchanged since then. By whom is not known: give --key", False
