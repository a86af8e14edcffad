"""Runs run_matrix.py in several processes side by side, and yields rows as they come."""

import contextlib
import json
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from karez.core.errors import BadRequest, MissingPart
from karez.studio.architectures.rows import Row, from_tree

_MODULE = "karez.studio.architectures.run_matrix"
_QUIET = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "PYTHONWARNINGS": "ignore"}
_LAST_WORDS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """The libraries that were found, and the model types that they know."""

    versions: Mapping[str, str]
    known: tuple[str, ...]


class Trial:
    """Processes that try architectures; it ends them when it is left."""

    def __init__(
        self,
        types: Sequence[str],
        *,
        processes: int,
        env: Mapping[str, str],
        folder: Path | None = None,
    ) -> None:
        """Start the processes; each takes the next of the types when it has tried one."""
        words = [sys.executable, "-P", "-m", _MODULE]
        if folder is not None:
            words += ["--folder", str(folder.absolute())]
        self._types, self._taking = deque(types), threading.Lock()
        self._lines: queue.Queue[str | None] = queue.Queue()
        with contextlib.ExitStack() as stack:
            self._said = stack.enter_context(TemporaryFile("w+", errors="replace"))
            self._open = stack.pop_all()
        self._processes = [
            subprocess.Popen(  # noqa: S603 - our own program
                words,
                env={**env, **_QUIET},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                text=True,
            )
            for _ in range(processes)
        ]
        self._readers = [
            threading.Thread(target=self._read, args=[process], daemon=True)
            for process in self._processes
        ]

    def __enter__(self) -> "Trial":
        for reader in self._readers:
            reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        for process, reader in zip(self._processes, self._readers, strict=True):
            process.kill()  # an interrupt from the terminal has reached it too
            process.wait()
            reader.join()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
        self._open.close()

    def installed(self) -> Installed:
        """Return what the first process found. Raises MissingPart or BadRequest."""
        tree = self._next()
        if tree is None:
            raise self._failure()
        return Installed(versions=tree["versions"], known=tuple(tree["known"]))

    def rows(self) -> Iterator[Row]:
        """Yield rows as they come. Raises BadRequest if a process ends before its last row."""
        ended = 0
        while ended < len(self._processes):
            tree = self._next()
            if tree is None:
                ended += 1
            elif "known" not in tree:
                yield from_tree(tree)
        if any(process.wait() for process in self._processes):
            raise self._failure()

    def _next(self) -> dict[str, Any] | None:
        line = self._lines.get()
        return None if line is None else json.loads(line)

    def _read(self, process: "subprocess.Popen[str]") -> None:
        for line in process.stdout or ():
            self._lines.put(line)
            self._feed(process)
        self._lines.put(None)

    def _feed(self, process: "subprocess.Popen[str]") -> None:
        with self._taking:
            name = self._types.popleft() if self._types else ""
        with contextlib.suppress(BrokenPipeError, ValueError):  # it has ended, or had its last
            if process.stdin and name:
                process.stdin.write(f"{name}\n")
                process.stdin.flush()
            elif process.stdin:
                process.stdin.close()

    def _failure(self) -> BadRequest | MissingPart:
        failed = next(one for one in self._processes if one.wait())
        self._said.seek(0)
        said = self._said.read().strip()
        last = said.splitlines()[-1] if said else f"exit code {failed.returncode}"
        if last.startswith("ModuleNotFoundError"):
            return MissingPart(
                part=last.rpartition(" ")[2].strip("'"),
                needed_for="karez models check",
                install="pip install 'karez[node]'",
            )
        return BadRequest(problem=f"trying architectures ended early: {last[:_LAST_WORDS]}")
