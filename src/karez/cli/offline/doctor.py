"""`karez doctor`: check the software and the resources of this machine."""

import getpass
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer

from karez.cli.client_options import Json
from karez.cli.offline import versions
from karez.cli.output import json_out, table
from karez.cli.remote.blob_check import check_blobs
from karez.client.address import state_folder
from karez.client.sdk import Client
from karez.core.errors import KarezError
from karez.core.units import show_bytes

app = typer.Typer()
PARTS = {
    "ray": "the worker plane",
    "torch": "training",
    "transformers": "recipes",
    "peft": "recipes",
    "xllamacpp": "serving on CPUs",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One checked item: whether it is fine, and otherwise how to fix it."""

    what: str
    fine: bool
    seen: str
    fix: str = ""


@app.command()
def doctor(
    deep: Annotated[
        bool,
        typer.Option("--deep", help="Compare every blob of this machine's cloud with its digest."),
    ] = False,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair", help="With --deep: move damaged blobs aside, so that they can be uploaded."
        ),
    ] = False,
    backup: Annotated[
        Path | None,
        typer.Option(help="With --deep: folder of `karez backup` to repair blobs from."),
    ] = None,
    home: Annotated[str, typer.Option(help="State folder. Default: ~/.karez.")] = "",
    as_json: Json = False,
) -> None:
    """Check this machine and the cloud, and say what to fix. Exit code 1 if anything fails.

    Example: karez doctor --deep --backup /mnt/backups/karez
    """
    checks = [*_machine(), _isolation(), *_packages(), *_ascend(), _cloud()]
    if deep:
        checks += _blobs(home, backup, repair=repair or backup is not None)
    if as_json:
        json_out(checks)
    else:
        rows = [
            ("ok" if c.fine else "FIX", c.what, c.seen, "" if c.fine else c.fix) for c in checks
        ]
        table(("", "check", "seen", "what to do"), rows, empty="")
    if not all(check.fine for check in checks):
        raise typer.Exit(1)


def _machine() -> Iterator[Check]:
    python = ".".join(map(str, sys.version_info[:3]))
    yield Check(
        what="Python", fine=sys.version_info >= (3, 11), seen=python, fix="install Python 3.11+"
    )
    has_affinity = hasattr(os, "sched_getaffinity")  # Linux alone
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    yield Check(what="CPU cores", fine=cores >= 1, seen=str(cores))
    for path, least in (("/dev/shm", 256 << 20), (str(_existing(state_folder())), 4 << 30)):  # noqa: S108 - shared memory is checked, nothing is written
        if not os.path.exists(path):
            continue  # macOS and Windows have no /dev/shm, and only a node needs it
        free = shutil.disk_usage(path).free
        yield Check(
            what=f"room in {path}",
            fine=free >= least,
            seen=show_bytes(free),
            fix=f"make room for {show_bytes(least)}",
        )


def _isolation() -> Check:
    """What keeps jobs of several projects apart on this machine."""
    what = "jobs of several projects"
    if sys.platform != "linux":
        return Check(what=what, fine=True, seen="a node needs Linux")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "karez.drivers.steward.isolation_check"],
        capture_output=True,
        text=True,
        check=False,
    )
    said = (done.stdout.strip() or done.stderr.strip() or "no answer").splitlines()
    if said[-1:] != ["isolated"]:
        seen = f"all run as {getpass.getuser()}, who can read the whole cloud: {said[-1]}"
    else:
        seen = (
            "each runs as a user of its project, gains no rights, and has its own processes, "
            "files, /tmp and shared memory"
        )
    return Check(what=what, fine=True, seen=seen)


def _packages() -> Iterator[Check]:
    for name, use in PARTS.items():
        try:
            seen = version(name)
        except PackageNotFoundError:
            fix = "pip install 'karez[node]'"
            yield Check(what=f"{name} ({use})", fine=False, seen="missing", fix=fix)
        else:
            yield Check(what=f"{name} ({use})", fine=True, seen=seen)


def _ascend() -> Iterator[Check]:
    installed = versions.here()
    if not installed:
        yield Check(what="Ascend's software", fine=True, seen="none here")
    for what, fine, seen, fix in versions.findings(installed):
        yield Check(what=what, fine=fine, seen=seen, fix=fix)


def _cloud() -> Check:
    try:
        seen = Client().summary()
    except KarezError as error:
        return Check(what="cloud", fine=True, seen=f"not running ({error.what()})")
    nodes = ", ".join(f"{count} {state}" for state, count in seen.nodes.items())
    fine = "ready" in seen.nodes
    return Check(what="cloud", fine=fine, seen=f"{seen.version}: {nodes}", fix="see `karez pool`")


def _blobs(home: str, backup: Path | None, *, repair: bool) -> Iterator[Check]:
    found = check_blobs(home, repair=repair, backup=backup)
    bad = [blob for blob in found.damaged if not blob.is_repaired]
    seen = f"{found.blobs} checked"
    if found.damaged:
        seen += f", {len(found.damaged)} damaged or lost, {len(found.damaged) - len(bad)} repaired"
    yield Check(what="blob store", fine=not bad, seen=seen, fix="see the lines below")
    for blob in bad:
        users = ", ".join(blob.artifacts) or "no artifact"
        yield Check(
            what=f"blob {blob.digest[:12]}",
            fine=False,
            seen=f"{'lost' if blob.is_lost else 'damaged'}; in {users}",
            fix="add the files again, or repair it with --backup FOLDER"
            if repair or blob.is_lost
            else "repair it with --backup FOLDER; or --repair, and add the files again",
        )


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


APPS = {"doctor": app}
