"""The key with which a cloud signs receipts and certificates."""

import base64
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from karez.core.receipts import Receipt, ReceiptsHead, fingerprint
from karez.vault.keys import read_or_make


class CloudKey:
    """An Ed25519 key (RFC 8032) in a file of mode 0600; its public half may be published."""

    def __init__(self, path: Path) -> None:
        """Read the key from a file, or create the file."""
        self._key = Ed25519PrivateKey.from_private_bytes(read_or_make(path))
        self.public = self._key.public_key().public_bytes_raw()
        """The public key, 32 bytes."""

    def sign(self, receipt: Receipt) -> Receipt:
        """Return a receipt with this cloud's signature."""
        named = replace(receipt, key=fingerprint(self.public), signature="")
        return replace(named, signature=self.seal(named.message))

    def sign_head(self, head: ReceiptsHead) -> ReceiptsHead:
        """Return a head of receipts with this cloud's signature."""
        named = replace(head, key=fingerprint(self.public), signature="")
        return replace(named, signature=self.seal(named.message))

    def seal(self, message: bytes) -> str:
        """Return the signature of any message, in base64."""
        return base64.b64encode(self._key.sign(message)).decode()
