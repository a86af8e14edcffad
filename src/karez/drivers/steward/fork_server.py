"""Fork server: single-threaded, torch preloaded; the parent of every workload process of a node.

Run as `python -m karez.drivers.steward.fork_server FD [PRELOAD ROOT]`. It forks on request, so that
a rank starts with torch already imported, and reports every exit. When its socket closes it kills
all processes and ends: a steward that dies leaves none behind. A function `after_fork` of the
preloaded module is called in every child before its program.
"""

import importlib
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from karez.core.mounts import Mount
from karez.drivers.steward import subreaper
from karez.drivers.steward.forked_child import become
from karez.drivers.steward.sandbox import Sandbox, end_orphans, enter, fork_in, make
from karez.transport import framing


def main() -> None:
    """Serve until the socket closes."""
    steward = socket.socket(fileno=int(sys.argv[1]))
    if len(sys.argv) > 2:
        _preload(sys.argv[2], sys.argv[3])
    subreaper.become_subreaper()  # of what a subreaper that was killed has left
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    os.set_blocking(wake_read, False)
    signal.set_wakeup_fd(wake_write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal
    server = _ForkServer(steward, (wake_read, wake_write))
    framing.send(steward, {"event": "ready"})
    while True:
        readable, _, _ = select.select([steward.fileno(), wake_read, *server.processes], [], [])
        if wake_read in readable:
            os.read(wake_read, 4096)
            server.reap()
        for pipe in set(readable) & set(server.processes):
            server.hear(pipe)
        if steward.fileno() in readable:
            try:
                request, _ = framing.receive(steward)
            except (EOFError, OSError, ValueError):  # where the next one begins is unknown
                server.end()
            server.try_to_serve(request)


def _preload(module: str, root: str) -> None:
    """Import a module that may lie below `root`, where nothing else is looked for."""
    is_elsewhere = root not in sys.path
    sys.path += [root] * is_elsewhere
    try:
        importlib.import_module(module)
    except ModuleNotFoundError:  # a node without the extra `node` runs programs that need none
        traceback.print_exc()
    if is_elsewhere:
        sys.path.remove(root)


@dataclass(frozen=True, slots=True)
class _Process:
    key: str
    pid: int
    subreaper: int
    """Process id of its subreaper."""
    order: Path
    """File that it was to read and remove."""


class _ForkServer:
    """Forks processes on request, each below a subreaper, and knows their keys."""

    def __init__(self, steward: socket.socket, wake: tuple[int, int]) -> None:
        self.steward = steward
        self.wake = wake
        self.processes: dict[int, _Process] = {}
        """Pipe of its subreaper -> process."""
        self.subreapers: dict[int, Sandbox] = {}
        """Id of a subreaper in a sandbox -> that sandbox."""
        self.sandboxes: dict[int, str] = {}
        """Id of its first process -> name of the sandbox."""

    def try_to_serve(self, request: Mapping[str, Any]) -> None:
        """Serve a request; one that cannot be is the end of its process alone."""
        try:
            self.serve(request)
        except (OSError, LookupError, TypeError, ValueError) as error:
            traceback.print_exc()
            code = -int(signal.SIGKILL) if isinstance(error, OSError) else 127  # the node's fault
            ended = {"event": "exit", "key": request.get("key", ""), "pid": 0, "code": code}
            framing.send(self.steward, ended)

    def serve(self, request: Mapping[str, Any]) -> None:
        match request["op"]:
            case "start":
                self._start(request)
            case "kill":
                for process in self.processes.values():
                    if process.key == request["key"]:
                        _signal_group(process.pid, int(request["signal"]))
            case "sandbox":
                self._make_sandbox(request)
            case "end-sandbox":
                for pid, name in self.sandboxes.items():
                    if name == request["key"]:
                        _signal_group(pid, signal.SIGKILL)

    def _start(self, request: Mapping[str, Any]) -> None:
        key, given = request["key"], request.get("sandbox")
        sandbox = None if given is None else Sandbox(**given)
        order = Path(request["order"])
        read, write = os.pipe()
        try:
            server, forked = os.getpid(), fork_in(sandbox)
        except OSError:
            os.close(read)
            os.close(write)
            order.unlink(missing_ok=True)
            raise
        if forked == 0:
            self._keep(order, sandbox, (read, write), server)
        os.close(write)
        pid = int(_line(read) or 0)  # 0: it could not be forked, and `hear` is told so
        self.processes[read] = _Process(key, pid, forked, order)
        if sandbox is not None:
            self.subreapers[forked] = sandbox
        started = {"event": "started", "key": key, "pid": pid, "subreaper": forked}
        framing.send(self.steward, started)

    def _make_sandbox(self, request: Mapping[str, Any]) -> None:
        answer = {"event": "sandbox", "key": request["key"], "ticket": request["ticket"]}
        try:
            mounts = [Mount(**one) for one in request["mounts"]]
            pid, namespace = make(mounts, self._close)
        except OSError as error:
            answer["problem"] = str(error)
        else:
            self.sandboxes[pid] = request["key"]
            answer |= {"pid": pid, "namespace": namespace}
        framing.send(self.steward, answer)

    def _keep(
        self, order: Path, sandbox: Sandbox | None, pipe: tuple[int, int], server: int
    ) -> NoReturn:
        """In the child: never returns into the loop."""
        read, write = pipe
        try:
            os.close(read)
            self._close()
            if sandbox is None:
                subreaper.keep(lambda: become(order, None), write, server)
            subreaper.keep(lambda: become(order, sandbox), write, 0, lambda: enter(sandbox))
        finally:  # as in `become`, it must not return
            if sys.exc_info()[0] is not None:
                traceback.print_exc()
            os._exit(1)

    def _close(self) -> None:
        """In a child: close what is this server's."""
        for fd in (*self.wake, *self.processes):
            os.close(fd)
        self.steward.close()

    def hear(self, pipe: int) -> None:
        """Report that a process has ended, and all that it started; or else that it is lost."""
        process, line = self.processes.pop(pipe), _line(pipe)
        os.close(pipe)
        process.order.unlink(missing_ok=True)
        if not line:  # its subreaper was killed, and it with it
            _signal_group(process.pid, signal.SIGKILL)
        code = int(line) if line else -int(signal.SIGKILL)
        ended = {"event": "exit", "key": process.key, "pid": process.pid, "code": code}
        framing.send(self.steward, ended)

    def reap(self) -> None:
        """Reap ended subreapers, and end what one of them has left."""
        while ended := _reaped():
            if (sandbox := self.subreapers.pop(ended, None)) is not None:
                end_orphans(sandbox)
            if (name := self.sandboxes.pop(ended, None)) is not None:
                framing.send(self.steward, {"event": "sandbox-ended", "key": name, "pid": ended})
        own = [process.subreaper for process in self.processes.values()]
        subreaper.end_children(keep=[*own, *self.sandboxes])

    def end(self) -> NoReturn:
        for process in self.processes.values():
            _signal_group(process.pid, signal.SIGKILL)
        subreaper.end_children()
        os._exit(0)


def _reaped() -> int:
    """Id of an ended child; 0: there is none."""
    try:
        return os.waitpid(-1, os.WNOHANG)[0]
    except ChildProcessError:
        return 0


def _line(pipe: int) -> bytes:
    """A line from a subreaper; empty if it has ended without one."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(pipe, 1)):
        line += byte
    return line


def _signal_group(pid: int, number: int) -> None:
    if pid <= 0:  # to the kernel 0 is this process's own group
        return
    for send in (os.killpg, os.kill):
        try:
            send(pid, number)
        except (ProcessLookupError, PermissionError):
            continue


if __name__ == "__main__":
    main()
