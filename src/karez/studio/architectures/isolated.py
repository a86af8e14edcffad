"""Tries one architecture in processes of its own: what breaks one breaks no other.

A process is forked from one that has imported torch and transformers, and may use so much memory
and processor time. It tells what it does and how that went, line by line through a pipe, so that a
crash loses only what comes after.
"""

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from karez.runtime.host_clock import monotonic_s
from karez.studio.architectures.attempts import Failed, attempt
from karez.studio.architectures.checks import CHECKS, lora
from karez.studio.architectures.folder_weights import check_weights
from karez.studio.architectures.model_types import ModelType
from karez.studio.architectures.npu_checks import check_npu
from karez.studio.architectures.rows import OK, Check, Row
from karez.studio.architectures.tiny_model import NotBuilt, TinyModel, build


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a process may use."""

    cpu_s: int
    memory_bytes: int

    @property
    def wall_s(self) -> int:
        """Seconds until it is killed: machines are shared."""
        return 4 * self.cpu_s


LIMITS = Limits(cpu_s=60, memory_bytes=14 * 2**30)
"""Of one architecture."""
_ALL = Limits(cpu_s=3600, memory_bytes=resource.RLIM_INFINITY)
"""Of a folder, whose weights may be as large as the machine can hold."""
_READ_BYTES = 65536
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_DIED = {
    signal.SIGXCPU: "took more processor time than it may",
    signal.SIGKILL: "took longer than it may, or more memory than there is",
    signal.SIGSEGV: "crashed the process (SIGSEGV)",
}


class Teller:
    """Tells the parent process what is done, through a pipe."""

    def __init__(self, pipe: int) -> None:
        """Tell through this end of a pipe."""
        self._pipe = pipe

    def begin(self, check: Check) -> None:
        """A check begins: if the process ends now, it is to blame."""
        self._write(["begin", check])

    def end(self, check: Check, outcome: str) -> None:
        """A check has ended."""
        self._write(["end", check, outcome])

    def died(self, how: str) -> None:
        """A process that this one had started ended in the middle of a check."""
        self._write(["died", how])

    def parameters(self, count: int) -> None:
        """So many parameters has the model."""
        self._write(["parameters", count])

    def _write(self, line: list[Any]) -> None:
        os.write(self._pipe, (json.dumps(line) + "\n").encode())


def try_type(kind: ModelType) -> Row:
    """Try everything with one model type, by its default configuration."""
    return row_told_by(kind, lambda tell: _try(kind, None, tell))


def try_folder(kind: ModelType, config: Any, folder: Path) -> Row:
    """Read the weights of a model's folder; then try everything with a tiny model of its kind."""

    def work(tell: Teller) -> None:
        tell.begin(Check.WEIGHTS)
        how = _ended(_fork(lambda: tell.end(Check.WEIGHTS, check_weights(kind, folder)), _ALL))
        if how:
            tell.died(how)
        _try(kind, config, tell)

    return row_told_by(kind, work, _ALL)


def row_told_by(kind: ModelType, work: Callable[[Teller], None], limits: Limits = LIMITS) -> Row:
    """Run `work` in a process of its own, and return what it told of a model type."""
    outcomes: dict[Check, str] = {}
    doing, parameters = Check.CONFIG, 0
    for word, *rest in _told_by(work, limits):
        match word:
            case "begin":
                doing = Check(rest[0])
            case "end":
                outcomes[Check(rest[0])] = rest[1]
            case "died":
                outcomes[doing] = rest[0]
            case _:
                parameters = rest[0]
    return Row(
        model_type=kind.name,
        family=kind.family,
        architecture=kind.architecture,
        parameters=parameters,
        outcomes={check: outcomes[check] for check in Check if check in outcomes},
    )


def _try(kind: ModelType, config: Any, tell: Teller) -> None:
    tell.begin(Check.INIT)
    tiny = build(kind, config)
    if isinstance(tiny, NotBuilt):
        for check, text in tiny.reached.items():
            tell.end(check, text)
        return
    tell.parameters(tiny.parameters)
    for check in (Check.CONFIG, Check.INIT, Check.FORWARD):
        tell.end(check, OK)
    how = _ended(_fork(lambda: check_npu(tiny, tell), LIMITS))
    if how:
        tell.died(how)
    _try_on_host(tiny, tell)


def _try_on_host(tiny: TinyModel, tell: Teller) -> None:
    for check, function in CHECKS.items():
        tell.begin(check)
        outcome = attempt(partial(function, tiny))
        tell.end(check, outcome.reason if isinstance(outcome, Failed) else outcome)
    tell.begin(Check.LORA)
    outcomes = attempt(lambda: lora(tiny))
    if isinstance(outcomes, Failed):
        outcomes = {Check.LORA: outcomes.reason}
    for check, text in outcomes.items():
        tell.end(check, text)


def _told_by(work: Callable[[Teller], None], limits: Limits) -> Iterator[list[Any]]:
    """Run `work` in a process, and yield what it tells; last, how it died if it did."""
    ours, theirs = os.pipe()

    def run() -> None:
        os.setpgid(0, 0)  # with all that it starts
        work(Teller(theirs))

    child = _fork(run, limits)
    os.close(theirs)
    deadline, rest = monotonic_s() + limits.wall_s, b""
    try:
        while True:
            ready, _, _ = select.select([ours], [], [], max(deadline - monotonic_s(), 0))
            if not ready:
                os.killpg(child, signal.SIGKILL)
                break
            piece = os.read(ours, _READ_BYTES)
            if not piece:
                break
            *lines, rest = (rest + piece).split(b"\n")
            yield from map(json.loads, lines)
    finally:
        os.close(ours)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # it has ended, unless we were interrupted
    how = _ended(child)
    if how:
        yield ["died", how]


def _fork(work: Callable[[], None], limits: Limits) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # nobody outlives its parent
        _limit(resource.RLIMIT_AS, limits.memory_bytes)
        _limit(resource.RLIMIT_CPU, limits.cpu_s)
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        work()
        code = 0
    finally:
        os._exit(code)


def _limit(what: int, most: int) -> None:
    """Set a limit, or the one that this process has already where that is lower."""
    _, hard = resource.getrlimit(what)
    bounds = [one for one in (most, hard) if one != resource.RLIM_INFINITY]
    resource.setrlimit(what, (min(bounds, default=resource.RLIM_INFINITY), hard))


def _ended(child: int) -> str:
    """Wait for a process, and say how it died; nothing if it ended by itself."""
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return "ended with an error" if code else ""
    return _DIED.get(signal.Signals(-code), f"ended by {signal.Signals(-code).name}")
