"""The sandboxes of a node: one for each workload that runs on it, as a user of its project."""

import json
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import structlog

from karez.core.errors import NotIsolated
from karez.core.mounts import bind_mounts
from karez.core.nodes import Isolation
from karez.core.processes import ProcessSpec
from karez.core.workloads import WorkloadId
from karez.drivers.steward.config import StewardConfig
from karez.drivers.steward.isolation_check import USERS, isolation_problem
from karez.drivers.steward.job_files import JobFiles, device_groups, give
from karez.drivers.steward.sandbox import Sandbox

log = structlog.get_logger()
MAKE_S = 30.0
"""How long a fork server may take to make a sandbox."""
Ask = Callable[[Mapping[str, Any], Path | None], str]
"""Sends a request to a fork server, and returns the server's name."""


@dataclass(slots=True)
class _Making:
    """A sandbox that is being made, or was."""

    server: str = ""
    ticket: str = ""
    answer: Mapping[str, Any] = field(default_factory=dict)
    has_answer: threading.Event = field(default_factory=threading.Event)

    @property
    def problem(self) -> str:
        """Why it was not made; empty if it was."""
        return str(self.answer.get("problem", "" if self.answer else "its fork server is silent"))


class Sandboxes:
    """Makes a sandbox when the first process of a workload starts, and ends it with the last."""

    def __init__(self, config: StewardConfig, memory: Path, ask: Ask) -> None:
        """Make none yet; begin to find out whether this node can."""
        self._config, self._memory, self._ask = config, memory, ask
        self._home = Path(config.home)
        self._files = JobFiles(self._home, memory, bind_mounts(config.bind_paths))
        self._lock = threading.Lock()
        self._locks: dict[WorkloadId, threading.Lock] = {}
        self._made: dict[WorkloadId, _Making] = {}
        self._count = 0
        self._is_known = threading.Event()
        self._problem = "it is not known yet"
        threading.Thread(target=self._find_out, daemon=True).start()

    @property
    def isolation(self) -> Isolation:
        """How this node keeps jobs apart."""
        self._is_known.wait(2 * MAKE_S)  # the check has half of it
        return Isolation.NONE if self._problem else Isolation.USERS

    @property
    def are_made(self) -> bool:
        """Whether processes run in sandboxes here."""
        return self.isolation != Isolation.NONE

    @property
    def limit(self) -> str:
        """The same for people, with the reason."""
        if self.isolation == Isolation.NONE:
            return f"not kept apart: {self._problem}"
        return "each runs as a user of its project, and sees no other job's processes and files"

    def admit(self, project: str) -> None:
        """Note that a project runs here. Raises NotIsolated: another one does."""
        if self._config.shared_user or self.isolation != Isolation.NONE:
            return
        with self._lock:
            file = self._home / "project"
            only = file.read_text() if file.exists() else project
            if only != project:
                raise NotIsolated(project=project, other=only, why=self._problem)
            file.write_text(project)

    def of(self, spec: ProcessSpec) -> Sandbox | None:
        """The sandbox of a process, made if it is the first of its workload; None: it has none.

        Raises:
            OSError: It cannot be made.
        """
        if self.isolation == Isolation.NONE:
            return None
        with self._lock:
            lock = self._locks.setdefault(spec.workload, threading.Lock())
        with lock:
            making = self._made.get(spec.workload)
            if making is None or making.problem:
                making = self._make(spec)
            if making.problem:
                raise OSError(f"its sandbox cannot be made: {making.problem}")
            answer = making.answer
        return Sandbox(
            pid=answer["pid"],
            namespace=answer["namespace"],
            user=self.user_of(spec.project),
            groups=device_groups(spec.grant),
            most_processes=self._config.most_processes,
        )

    def user_of(self, project: str) -> int:
        """The number of a project's user, and of that user's group, on this node."""
        with self._lock:
            file = self._home / "users.json"
            users: dict[str, int] = json.loads(file.read_text()) if file.exists() else {}
            if project not in users:
                # the same on all nodes of a cloud, as far as no other project has it already
                seed = sha256(f"users|{self._config.token}|{project}".encode()).digest()
                number = int.from_bytes(seed[:4], "big") % USERS
                while self._config.first_user + number in users.values():
                    number = (number + 1) % USERS
                users[project] = self._config.first_user + number
                whole = file.with_suffix(".partial")
                whole.write_text(json.dumps(users))
                whole.replace(file)
            return users[project]

    def environment(self, sandbox: Sandbox | None, spec: ProcessSpec) -> dict[str, str]:
        """Variables by which a process in a sandbox knows its user."""
        if sandbox is None:
            return {}
        return self._files.variables(spec)

    def give(self, sandbox: Sandbox | None, folders: Iterable[Path]) -> None:
        """Give folders that were just filled to the user of a sandbox; once, before it has them."""
        if sandbox is None:
            return
        for folder in folders:
            folder.parent.chmod(0o755)
            give(folder, sandbox.user)

    def end(self, workload: WorkloadId) -> None:
        """End a workload's sandbox, and all that is still in it; also one that came too late."""
        with self._lock:
            lock = self._locks.setdefault(workload, threading.Lock())
        with lock, self._lock:  # one that is being made is waited for
            self._locks.pop(workload, None)
            self._made.pop(workload, None)
        self._tell({"op": "end-sandbox", "key": workload})

    def hear(self, report: Mapping[str, Any]) -> None:
        """Take a report of a fork server about a sandbox."""
        with self._lock:
            for workload, making in list(self._made.items()):
                if report["event"] == "sandbox" and report["ticket"] == making.ticket:
                    making.answer = report
                    making.has_answer.set()
                elif report["event"] == "sandbox-ended" and _is_of(making, report):
                    del self._made[workload]

    def lost(self, server: str) -> None:
        """Forget what ended with a fork server."""
        with self._lock:
            for workload, making in list(self._made.items()):
                if making.server == server:
                    del self._made[workload]
                    making.has_answer.set()

    def _find_out(self) -> None:
        config = self._config
        try:
            self._problem = (
                "the setting `shared_user` is on"
                if config.shared_user
                else isolation_problem(self._home, self._memory, config.first_user)
            )
        except Exception as error:  # noqa: BLE001 - what is not known is not relied on
            self._problem = str(error)
        if self._problem and not config.shared_user:
            log.warning("isolation.missing", why=self._problem)
        self._is_known.set()

    def _make(self, spec: ProcessSpec) -> _Making:
        mounts = self._files.mounts(spec, self.user_of(spec.project))
        with self._lock:
            self._count += 1
            making = _Making(ticket=str(self._count))
            self._made[spec.workload] = making
        request = {
            "op": "sandbox",
            "key": spec.workload,
            "ticket": making.ticket,
            "warm": spec.warm,
            "mounts": [asdict(one) for one in mounts],
        }
        making.server = self._ask(request, None)
        making.has_answer.wait(MAKE_S)
        return making

    def _tell(self, request: Mapping[str, Any]) -> None:
        for is_warm in (False, True):
            try:
                self._ask({**request, "warm": is_warm}, None)
            except OSError:
                continue  # it ended, and its sandboxes with it


def _is_of(making: _Making, report: Mapping[str, Any]) -> bool:
    return bool(making.answer.get("pid") == report["pid"])
