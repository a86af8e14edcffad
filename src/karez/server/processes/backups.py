"""`karezd backup` and `karezd restore`: requests come as JSON on standard input."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from karez.core.backups import BackupRequest, RestoreRequest
from karez.core.codec import from_text, to_json
from karez.core.settings import Settings
from karez.server.backups.backup import back_up
from karez.server.backups.restore import restore
from karez.server.clock import SteadyClock
from karez.server.home import Home
from karez.server.processes.report import Report
from karez.server.processes.settings_file import existing_home, settings_from
from karez.server.wiring import backup_folder, backup_source, restore_target

EVERY_S = 1.0
"""Seconds between two reports of progress."""


def run_backup(settings: Settings, report: Report) -> None:
    """Back the cloud of these settings up. Raises what `back_up` raises."""
    request = from_text(BackupRequest, sys.stdin.read())
    source = backup_source(
        settings,
        Home(path=existing_home(settings)),
        with_database=request.with_database,
        with_blobs=request.with_blobs,
    )
    try:
        snapshot = back_up(
            source,
            backup_folder(Path(request.to)),
            SteadyClock().now(),
            keep=request.keep,
            say=sayer(report),
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
    report({"done": to_json(restore(backup, snapshot, target, sayer(report)))})


def sayer(report: Report) -> Callable[[str, int, int], None]:
    """What tells of progress, not more often than people look."""
    clock, told_at = SteadyClock(), 0.0

    def say(what: str, done: int, of: int) -> None:
        nonlocal told_at
        if done == of or clock.now() - told_at >= EVERY_S:
            told_at = clock.now()
            report({"progress": what, "done": done, "of": of})

    return say
