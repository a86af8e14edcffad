"""Check of a certificate, offline and with the base install."""

import json
from pathlib import Path

from karez.core.errors import BadRequest
from karez.equivalence import signed_certificate


def check(path: Path, key: str) -> str:
    """Check a certificate. Returns a sentence about it. Raises BadRequest if it is invalid."""
    try:
        signed = json.loads(path.read_text())
        public = bytes.fromhex(key) if key else None
    except (OSError, ValueError) as error:
        raise BadRequest(problem=f"{path} cannot be read: {error}") from error
    problem = signed_certificate.check(signed, public)
    if problem:
        raise BadRequest(problem=f"{path}: {problem}")
    verdict = "lossless" if signed["lossless"] else "not lossless"
    return f"{path}: {verdict}, signed with {signed['key']} at {signed['made_at']}"
