"""`karezd backup` and `karezd restore`: requests come as JSON on standard input."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from karez.core.backups import BackupRequest, RestoreRequest
from karez.core.codec import from_text, to_json
from karez.core.errors import BadRequest
from karez.core.settings import Settings
from karez.server.backups.backup import back_up
from karez.server.backups.restore import restore
from karez.server.clock import SteadyClock
from karez.server.home import Home
from karez.server.processes.report import Report
from karez.server.processes.settings_file import settings_from
from karez.server.wiring import backup_folder, backup_source, restore_target

EVERY_S = 1.0
"""Seconds between two reports of progress."""


def run_backup(settings: Settings, report: Report) -> None:
    """Back the cloud of these settings up. Raises what `back_up` raises."""
    request = from_text(BackupRequest, sys.stdin.read())
    path = Path(settings.home).expanduser().absolute()
    if not (path / "pepper").exists():
        problem = f"there is no cloud in {path}"
        raise BadRequest(problem=problem, fix="Name its state folder with --home.")
    source = backup_source(
        settings,
        Home(path=path),
        with_database=request.with_database,
        with_blobs=request.with_blobs,
    )
    try:
        snapshot = back_up(
            source,
            backup_folder(Path(request.to)),
            SteadyClock().now(),
            keep=request.keep,
            say=_sayer(report),
        )
    finally:
        if source.database is not None:
            source.database.close()
    report({"done": to_json(snapshot)})


def run_restore(settings: Settings, report: Report) -> None:
    """Make a cloud of a snapshot, with its own settings. Raises what `restore` raises."""
    del settings
    request = from_text(RestoreRequest, sys.stdin.read())
    backup = backup_folder(Path(request.source))
    snapshot = backup.find(request.snapshot)
    own = settings_from(backup.folder_of(snapshot.name) / "home" / "karez.toml")
    if request.database:
        own = replace(own, database=request.database)
    target = restore_target(own, Path(request.home).expanduser().resolve())
    report({"done": to_json(restore(backup, snapshot, target, _sayer(report)))})


def _sayer(report: Report) -> Callable[[str, int, int], None]:
    clock, told_at = SteadyClock(), 0.0

    def say(what: str, done: int, of: int) -> None:
        nonlocal told_at
        if done == of or clock.now() - told_at >= EVERY_S:
            told_at = clock.now()
            report({"progress": what, "done": done, "of": of})

    return say
