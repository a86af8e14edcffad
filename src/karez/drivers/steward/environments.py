"""Makes the Python environments of a node, each once, and removes those that nobody uses.

An environment is a venv over the node's own packages: what it does not bring, such as torch and
karez, is the node's. So it is made in seconds, and a fork server runs in it.
"""

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import site
import sys
import threading
import venv
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import structlog

from karez.core.errors import EnvironmentFailed, KarezError
from karez.core.python_environments import MAKE_S, REQUIREMENTS, WHEELS, PythonEnvironment
from karez.drivers.programs import last_lines, run_program
from karez.drivers.steward.child_processes import inherited
from karez.drivers.steward.staging import BlobSource, digest_of, lay_out

log = structlog.get_logger()
KEEP_S = 7 * 86_400.0
"""Seconds after its last use for which an environment is kept."""
SHARED = "shared"
"""Folder of the environments of all projects, where they are not kept apart."""
_READY = "karez-environment.json"
_PASSED_ON = ("PIP_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_", "REQUESTS_CA_BUNDLE")
"""Beginnings of the names of variables by which an operator tells pip where packages are."""


@dataclass(slots=True)
class _Making:
    """An environment that is being made, or was."""

    done: threading.Event = field(default_factory=threading.Event)
    problem: KarezError | None = None


class Environments:
    """The environments of a node, by what they are made from."""

    def __init__(self, home: Path, blobs: BlobSource) -> None:
        """Keep them in `home`; nothing is made yet."""
        self._home, self._blobs = home, blobs
        self._lock = threading.Lock()
        self._makings: dict[Path, _Making] = {}

    def prepare(
        self,
        wanted: PythonEnvironment,
        is_given_up: Callable[[], bool],
        on_making: Callable[[], None] = lambda: None,
        *,
        user: int = 0,
    ) -> Path | None:
        """Return the folder of an environment, made first if need be; None: it was given up.

        Several may wait for the same one. What is here from an earlier start of this agent is
        compared with its digests before it is used.

        Args:
            wanted: The environment.
            is_given_up: Whether the caller waits no more; the making goes on for others.
            on_making: Called if it has to be made.
            user: The user of the project whose it is, where the node keeps projects apart: it gets
                wheels alone, since all else runs code as this agent when it is installed.

        Raises:
            EnvironmentFailed: It cannot be made, with what pip said.
            NotFound, BrokenArtifact, StorageFull, Unreachable: Its files cannot be fetched.
        """
        folder = self._home / (str(user) if user else SHARED) / _key(wanted)
        with self._lock:
            making = self._makings.get(folder)
            if making is None or making.problem is not None:
                making = self._makings[folder] = _Making()
                args = (wanted, folder, making, user != 0)
                threading.Thread(target=self._make, args=args, daemon=True).start()
        if not making.done.wait(0.05):
            on_making()
        while not making.done.wait(0.1):
            if is_given_up():
                return None
        if making.problem is not None:
            raise making.problem
        os.utime(folder / _READY)
        return folder

    def remove_unused(self, in_use: Collection[Path], keep_s: float = KEEP_S) -> None:
        """Remove environments that no process uses and that nobody has used for `keep_s`."""
        if not self._home.exists():
            return
        looked = self._home / ".looked"
        looked.touch()
        now = looked.stat().st_mtime  # by the clock that dates the other files
        for folder in self._home.glob("*/[!.]*"):
            with self._lock:
                making = self._makings.get(folder)
                is_making = making is not None and not making.done.is_set()
                if folder in in_use or is_making or now - _used_at(folder) < keep_s:
                    continue
                self._makings.pop(folder, None)
                shutil.rmtree(folder, ignore_errors=True)

    def _make(
        self, wanted: PythonEnvironment, folder: Path, making: _Making, is_isolated: bool
    ) -> None:
        try:
            if not _is_whole(folder):
                shutil.rmtree(folder, ignore_errors=True)
                self._build(wanted, folder, is_isolated=is_isolated)
        except KarezError as error:
            making.problem = error
        except Exception as error:
            log.exception("environment.failed", artifact=wanted.artifact)
            making.problem = _failed(wanted, f"{type(error).__name__}: {error}")
        if making.problem is not None:
            shutil.rmtree(folder, ignore_errors=True)
        making.done.set()

    def _build(self, wanted: PythonEnvironment, folder: Path, *, is_isolated: bool) -> None:
        source = folder / "source"
        lay_out(self._blobs, wanted.files, source)
        if is_isolated:
            _refuse_sources(wanted, source / REQUIREMENTS)
        has_pip = importlib.util.find_spec("pip") is not None
        venv.create(folder, with_pip=not has_pip, symlinks=True)
        packages = _packages_of(folder)
        over = [f"import site; site.addsitedir({path!r})" for path in site.getsitepackages()]
        (packages / "karez-node.pth").write_text("\n".join(over) + "\n")
        python = str(folder / "bin" / "python")
        run_pip = (
            [sys.executable, "-m", "pip", "--python", python] if has_pip else [python, "-m", "pip"]
        )
        options = ["install", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
        options += ["--only-binary", ":all:"] * is_isolated
        if (source / WHEELS).is_dir():
            options += ["--no-index", "--find-links", str(source / WHEELS)]
        command = [*run_pip, *options, "-r", str(source / REQUIREMENTS)]
        code, said = run_program(command, MAKE_S, env=inherited(*_PASSED_ON), cwd=folder)
        if code != 0:
            raise _failed(wanted, last_lines(said))
        shutil.rmtree(source)
        ready = {"artifact": wanted.artifact, "files": _digests(packages)}
        (folder / _READY).write_text(json.dumps(ready))


def _refuse_sources(wanted: PythonEnvironment, requirements: Path) -> None:
    """Refuse what pip would build, whose code it would run. Raises EnvironmentFailed."""
    for line in requirements.read_text().splitlines():
        word = line.partition("#")[0].strip()
        if "://" in word or "@" in word.partition(";")[0] or word.startswith((".", "/", "-e")):
            detail = (
                f"{word!r} is no wheel of an index; where projects are kept apart, none is built"
            )
            raise _failed(wanted, detail)


def bin_of(folder: Path) -> Path:
    """The folder of an environment's programs."""
    return folder / "bin"


def _key(wanted: PythonEnvironment) -> str:
    """Name of the folder: what it is made from, and what it stands on."""
    files = sorted(f"{file.path} {file.sha256}" for file in wanted.files)
    return hashlib.sha256(json.dumps([files, sys.version, _node_packages()]).encode()).hexdigest()[
        :20
    ]


@cache
def _node_packages() -> Sequence[str]:
    """Names and versions of the packages of this node, as they were when its agent started."""
    return sorted(f"{one.name}=={one.version}" for one in importlib.metadata.distributions())


def _packages_of(folder: Path) -> Path:
    return next((folder / "lib").glob("python*")) / "site-packages"


def _digests(packages: Path) -> dict[str, str]:
    """SHA-256 of each file that was installed."""
    return {
        str(file.relative_to(packages)): digest_of(file)[0]
        for file in sorted(packages.rglob("*"))
        if file.is_file() and "__pycache__" not in file.parts
    }


def _is_whole(folder: Path) -> bool:
    """Whether an environment is finished, and all of it is as it was installed."""
    try:
        ready = json.loads((folder / _READY).read_text())
        return bool(ready["files"] == _digests(_packages_of(folder)))
    except (OSError, ValueError, KeyError, StopIteration):
        return False


def _used_at(folder: Path) -> float:
    try:
        return (folder / _READY).stat().st_mtime
    except OSError:
        return 0.0  # it was never finished


def _failed(wanted: PythonEnvironment, detail: str) -> EnvironmentFailed:
    return EnvironmentFailed(name=f"environment {wanted.name}", detail=detail)
