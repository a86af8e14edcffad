"""Starts and kills the processes of a node through its fork servers."""

import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from karez.core.errors import KarezError
from karez.core.messages.reports import ProgressReport
from karez.core.messages.wire import content, encode
from karez.core.processes import ProcessSpec
from karez.core.workloads import WorkloadId
from karez.drivers.probes import accelerators
from karez.drivers.steward.config import StewardConfig
from karez.drivers.steward.environments import Environments
from karez.drivers.steward.fork_servers import ForkServers
from karez.drivers.steward.process_orders import ProcessOrders, ProcessRun
from karez.drivers.steward.process_table import ProcessTable, TrackedProcess
from karez.drivers.steward.resource_limits import out_of_memory
from karez.drivers.steward.sandboxes import Sandboxes
from karez.drivers.steward.tunnel_ends import Run

log = structlog.get_logger()

NOT_STARTED = 127
"""Exit code of a process that could not be started, as of a shell."""
TIDY_S = 150.0
"""Seconds between two looks for fork servers and environments that are not in use; the fork server
of an environment is stopped at the second look."""
TAIL_BYTES, MAX_WHY = 16_384, 400
"""Bytes of the end of a failed process's output that are read, and characters that are told."""


@dataclass(frozen=True, slots=True)
class _Guest:
    """A shell beside a process."""

    beside: TrackedProcess
    ended: Callable[[int], None]


SERVER_ENDED = "a fork server of this node has ended"


class ProcessLauncher:
    """Stages inputs, and sends requests to the fork servers."""

    def __init__(
        self,
        config: StewardConfig,
        table: ProcessTable,
        memory: Path,
        socket_path: str,
    ) -> None:
        """Start the fork servers; processes connect to the agent at `socket_path`."""
        self._config, self._table = config, table
        self._lock = threading.Lock()
        self._guests: dict[str, _Guest] = {}
        devices = accelerators(config.npus)
        self._environments = Environments(Path(config.home) / "environments", config.blobs)
        orders = memory / "orders"
        orders.mkdir(mode=0o700)
        self._servers = ForkServers(
            Path(config.home) / "fork_server.log",
            orders,
            config.preload,
            {device.kind.value for device in devices},
            self._on_report,
        )
        self.sandboxes = Sandboxes(config, memory, self._servers.ask)
        self.orders = ProcessOrders(config, memory, socket_path, devices, self.sandboxes)
        threading.Thread(target=self._tidy, daemon=True).start()

    def launch(self, spec: ProcessSpec, folder: Path, replica_server: str) -> None:
        """Stage a process's files and start it; a failure is recorded as its exit."""
        try:
            self.sandboxes.admit(spec.project)
            environment = self._prepare_environment(spec)
            if spec.image:
                self.orders.containers.fetch(
                    spec.image,
                    lambda: self._is_given_up(spec),
                    lambda: self._tell(spec, f"fetching the image {spec.image}"),
                )
            run = ProcessRun(spec, folder, self._token_of(spec.key), environment)
            order = self.orders.first(run, replica_server)
        except (KarezError, OSError) as error:
            self._table.ended(spec.key, NOT_STARTED, str(error))
            return
        except Exception as error:  # a process that never ends would keep its gang waiting
            log.exception("process.not-staged", process=spec.key)
            self._table.ended(spec.key, NOT_STARTED, f"{type(error).__name__}: {error}")
            return
        with self._lock:  # a kill comes before this, or after it in the fork server's order
            process = self._table.get(spec.key)
            if process is None or process.spec is not spec:
                self._forget_unless_used(spec.workload)  # or another start has its key
                return
            if process.is_doomed:
                self._table.ended(spec.key, -int(signal.SIGKILL), "it was ended before it started")
                return
            process.environment = environment
            try:
                process.server = self._servers.ask(order, None if order["sandbox"] else environment)
            except OSError:  # a fault of the node, as if the process had been killed with it
                self._table.ended(spec.key, -int(signal.SIGKILL), SERVER_ENDED)
            except ValueError as error:
                self._table.ended(spec.key, NOT_STARTED, str(error))

    def _forget_unless_used(self, workload: WorkloadId) -> None:
        """Clear what was laid out for a workload that was purged meanwhile."""
        if not self._table.keys(workload):
            self.sandboxes.end(workload)
            self.orders.drop(workload)

    def _token_of(self, key: str) -> str:
        process = self._table.get(key)
        return "" if process is None else process.token

    def guest_of(self, process: TrackedProcess) -> Run:
        """What starts a shell beside a process. Raises OSError if the fork server has ended."""

        def run(request: Mapping[str, Any], on_exit: Callable[[int], None]) -> None:
            key = request["key"]

            def ended(code: int) -> None:
                process.guests.pop(key, None)
                on_exit(code)

            process.guests[key] = 0
            self._guests[key] = _Guest(process, ended)
            self._servers.ask(request, None)

        return run

    def kill_guest(self, key: str) -> None:
        """End a shell, if it still runs."""
        if key in self._guests:
            self._servers.kill(key, int(signal.SIGKILL))

    def kill(self, key: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to a process and its children; one that is killed never starts."""
        with self._lock:
            process = self._table.get(key)
            if process is not None:
                process.is_doomed = process.is_doomed or number == signal.SIGKILL
            self._servers.kill(key, int(number))

    def problems(self) -> list[str]:
        """What of this node does not work, for people."""
        return self._servers.problems()

    def stop(self) -> None:
        """End all fork servers and all processes."""
        self._servers.stop()
        self.orders.groups.close()

    def _prepare_environment(self, spec: ProcessSpec) -> Path | None:
        """Have the environment of a process made; None: it has none, or is to be ended."""
        if spec.environment is None:
            return None
        what = f"making the environment {spec.environment.name}"
        return self._environments.prepare(
            spec.environment,
            lambda: self._is_given_up(spec),
            lambda: self._tell(spec, what),
            user=self.sandboxes.user_of(spec.project) if self.sandboxes.are_made else 0,
        )

    def _is_given_up(self, spec: ProcessSpec) -> bool:
        """Whether a process that is about to start is not wanted any more."""
        process = self._table.get(spec.key)
        return process is None or process.spec is not spec or process.is_doomed

    def _tell(self, spec: ProcessSpec, what: str) -> None:
        """Tell whoever started the job what its process waits for."""
        progress = ProgressReport(what=what)
        self._table.publish(spec.key, ProgressReport.TYPE, content(encode(progress)))

    def _tidy(self) -> None:
        """Stop the fork servers of environments that are not in use, and remove old ones."""
        pause = threading.Event()
        while not pause.wait(TIDY_S):
            with self._lock:
                running = [process.environment for process in self._table.alive()]
                in_use = {environment for environment in running if environment is not None}
                idle = self._servers.take_unused(in_use)
            for server in idle:
                server.stop()
            self._environments.remove_unused(in_use)

    def _on_report(self, server: str, report: Mapping[str, Any] | None) -> None:
        """Take a report of a fork server; None means that the fork server has ended."""
        if report is None:
            self._on_server_ended(server)
        elif report["event"] in ("sandbox", "sandbox-ended"):
            self.sandboxes.hear(report)
        elif report.get("key") in self._guests:
            self._on_guest(report)
        elif report["event"] == "started":
            self._table.started(report["key"], report["pid"], report["subreaper"])
        elif report["event"] == "exit":
            key, code = report["key"], int(report["code"])
            process = self._table.get(key)
            for guest in () if process is None else list(process.guests):
                self.kill_guest(guest)
            if process is not None:
                self._note_memory(process, code)
                self.orders.groups.remove(key)
            if process is not None and process.spec.image:
                threading.Thread(target=self._end_container, args=(key, code), daemon=True).start()
            else:
                self._table.ended(key, code, self._why(key, code))

    def _note_memory(self, process: TrackedProcess, code: int) -> None:
        """Note that the kernel has ended a process for its memory, if that was so."""
        if process.spec.grant is None or code != -signal.SIGKILL:
            return
        if not process.exceeded and self.orders.groups.was_out_of_memory(process.spec.key):
            process.exceeded = out_of_memory(process.spec.grant)

    def _end_container(self, key: str, code: int) -> None:
        """Its devices are free once its container is gone, which a killed program leaves."""
        self.orders.containers.remove(key)
        self._table.ended(key, code, self._why(key, code))

    def _on_server_ended(self, server: str) -> None:
        """Its processes ended with it."""
        code = -int(signal.SIGKILL)
        self.sandboxes.lost(server)
        if self._servers.is_cold(server):
            for guest in [self._guests.pop(key) for key in list(self._guests)]:
                guest.ended(code)
        try:
            self._servers.replace(server)  # first: what is started again finds the next one
        finally:
            with self._lock:  # what was asked of it has its name by now
                lost = [one for one in self._table.alive() if one.server == server]
            for process in lost:
                self._table.ended(process.spec.key, code, SERVER_ENDED)

    def _on_guest(self, report: Mapping[str, Any]) -> None:
        key = report["key"]
        if report["event"] == "started":
            self._guests[key].beside.guests[key] = report["subreaper"]
        else:
            self._guests.pop(key).ended(int(report["code"]))

    def _why(self, key: str, code: int) -> str:
        """What a process that failed by itself wrote last: of a Python program, its error."""
        process = self._table.get(key)
        line = last_line(process.folder / "log") if process is not None and code > 0 else ""
        return f"ended with code {code}: {line}" if line else ""


def last_line(path: Path) -> str:
    """The last typed error of an output, else its last line; without the module of the class."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    said = [line.strip() for line in reversed(lines) if line.strip()]
    typed = (line for line in said if line.startswith("karez.core.errors."))
    line = next(typed, (said or [""])[0])  # others may have written after it
    kind, colon, rest = line.partition(": ")
    return (
        f"{kind.rpartition('.')[2]}{colon}{rest}"[:MAX_WHY] if " " not in kind else line[:MAX_WHY]
    )
