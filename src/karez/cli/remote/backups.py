"""`karez backup` and `karez restore`: keep copies of a whole cloud, and make a cloud of one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from karez.cli.client_options import Json
from karez.cli.options import takes
from karez.cli.output import clock, json_out
from karez.cli.remote.cloud_process import run_program, show_progress
from karez.cli.terminal import say
from karez.core import environment
from karez.core.backups import BackupRequest, BackupSnapshot, Restored, RestoreRequest
from karez.core.codec import from_json, to_text
from karez.core.units import show_bytes

backup_app = typer.Typer()
restore_app = typer.Typer()


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupOptions:
    """Options of `karez backup`."""

    to: Annotated[
        Path, typer.Argument(help="Backup folder. A second backup copies only what is new.")
    ]
    home: Annotated[str | None, typer.Option(help="State folder. Default: ~/.karez.")] = None
    database: Annotated[
        str | None, typer.Option(help="Database URL, if the cloud was started with one.")
    ] = None
    keep: Annotated[int, typer.Option(min=0, help="Snapshots that stay; 0: all of them.")] = 0
    without_database: Annotated[
        bool,
        typer.Option(
            "--without-database", help="Leave the database out: PostgreSQL's own backup has it."
        ),
    ] = False
    without_blobs: Annotated[
        bool, typer.Option("--without-blobs", help="Leave the blobs out: their store keeps them.")
    ] = False


@backup_app.command()
@takes(BackupOptions)
def backup(options: BackupOptions, as_json: Json = False) -> None:
    """Copy the whole cloud on this machine into a folder; it may run meanwhile.

    The folder holds the cloud's keys: protect it as the state folder.

    Example: karez backup /mnt/backups/karez --keep 14
    """
    request = BackupRequest(
        to=str(options.to.expanduser().absolute()),
        keep=options.keep,
        with_database=not options.without_database,
        with_blobs=not options.without_blobs,
    )
    flags = {environment.HOME: options.home, environment.DATABASE: options.database}
    env = {name: value for name, value in flags.items() if value is not None}
    done = from_json(BackupSnapshot, _run("backup", to_text(request), env))
    if as_json:
        json_out(done)
    else:
        rows = sum(table.rows for table in done.database.tables) if done.database else 0
        blobs = len(done.database.blobs) if done.database and done.has_blobs else 0
        say(
            f"snapshot {done.name}: {rows} rows, {len(done.files)} files,"
            f" {blobs} blobs ({show_bytes(done.blob_bytes)})"
        )
        say(f"restore it with: karez restore {options.to} --home FOLDER")
    if done.missing_blobs:
        say(
            f"{len(done.missing_blobs)} blobs that the database names are lost or damaged in the"
            " blob store: what needs them cannot be used",
            err=True,
        )
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreOptions:
    """Options of `karez restore`."""

    source: Annotated[Path, typer.Argument(help="Backup folder of `karez backup`.")]
    home: Annotated[str, typer.Option(help="State folder of the new cloud: absent, or empty.")]
    snapshot: Annotated[str, typer.Option(help="Name of the snapshot. Default: the newest.")] = ""
    database: Annotated[
        str, typer.Option(help="URL of an empty database. Default: SQLite in the state folder.")
    ] = ""


@restore_app.command()
@takes(RestoreOptions)
def restore(options: RestoreOptions, as_json: Json = False) -> None:
    """Make a cloud of a snapshot; `karez up` then starts it, and its jobs go on.

    Stop the old cloud first: two clouds with the same jobs would run them twice.

    Example: karez restore /mnt/backups/karez --home ~/.karez
    """
    request = RestoreRequest(
        source=str(options.source.expanduser().absolute()),
        home=options.home,
        snapshot=options.snapshot,
        database=options.database,
    )
    done = from_json(Restored, _run("restore", to_text(request), {}))
    if as_json:
        json_out(done)
        return
    at = clock(done.made_at)
    say(f"{done.home} is the cloud of {at}: {done.rows} rows, {done.blobs} blobs")
    if done.missing_blobs:
        say(
            f"{len(done.missing_blobs)} blobs that the database names are not in the backup: what"
            " needs them cannot be used"
        )
    database = f" --database {options.database}" if options.database else ""
    say(f"start it with: karez up --home {options.home}{database}")


def _run(name: str, request: str, env: dict[str, str]) -> Any:
    done: Any = run_program(name, request, env, say=show_progress)
    return done


APPS = {"backup": backup_app, "restore": restore_app}
