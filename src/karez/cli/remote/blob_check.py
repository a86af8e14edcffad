"""Re-hashing of the blob store, for `karez doctor --deep`."""

from pathlib import Path
from typing import Any

from karez.cli.remote.cloud_process import run_program, show_progress
from karez.core import environment
from karez.core.backups import BlobCheck, BlobCheckRequest
from karez.core.codec import from_json, to_text


def check_blobs(home: str, *, repair: bool, backup: Path | None) -> BlobCheck:
    """Compare each blob of the cloud in a state folder with its digest."""
    request = BlobCheckRequest(
        repair=repair, backup=str(backup.expanduser().absolute()) if backup else ""
    )
    env = {environment.HOME: home} if home else {}
    done: Any = run_program("check-blobs", to_text(request), env, say=show_progress)
    return from_json(BlobCheck, done)
