"""`karezd check-blobs`: the request comes as JSON on standard input."""

import sys
from pathlib import Path

from karez.core.backups import BlobCheckRequest
from karez.core.codec import from_text, to_json
from karez.core.settings import Settings
from karez.server.backups.blob_check import check_blobs
from karez.server.home import Home
from karez.server.processes.backups import sayer
from karez.server.processes.report import Report
from karez.server.processes.settings_file import existing_home
from karez.server.wiring import artifacts_of, backup_folder, blobs_of


def run_check_blobs(settings: Settings, report: Report) -> None:
    """Check the blobs of the cloud of these settings. Raises BadRequest."""
    request = from_text(BlobCheckRequest, sys.stdin.read())
    home = Home(path=existing_home(settings))
    backup = backup_folder(Path(request.backup)) if request.backup else None
    if backup is not None:
        backup.find("")  # raises where this is no backup
    done = check_blobs(
        blobs_of(settings, home),
        artifacts_of(settings, home),
        None if backup is None else backup.blobs,
        repair=request.repair,
        say=sayer(report),
    )
    report({"done": to_json(done)})
