"""Fork server: single-threaded, torch preloaded; the parent of every workload process of a node.

Run as `python -m karez.drivers.steward.fork_server FD [PRELOAD]`. It forks on request, so that a
rank starts with torch already imported, and reports every exit. When its socket closes it kills
its children and ends: a steward that dies leaves no process behind. A function `after_fork` of the
preloaded module is called in every child before its program.
"""

import ctypes
import importlib
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Mapping
from typing import Any, NoReturn

from karez.core.errors import KarezError
from karez.transport import framing

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Serve until the socket closes."""
    steward = socket.socket(fileno=int(sys.argv[1]))
    if len(sys.argv) > 2:
        try:
            importlib.import_module(sys.argv[2])
        except ModuleNotFoundError:  # a node without the extra `node` runs programs that need none
            traceback.print_exc()
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    os.set_blocking(wake_read, False)
    signal.set_wakeup_fd(wake_write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal
    server = _ForkServer(steward, (wake_read, wake_write))
    framing.send(steward, {"event": "ready"})
    while True:
        readable, _, _ = select.select([steward.fileno(), wake_read], [], [])
        if wake_read in readable:
            os.read(wake_read, 4096)
            server.reap()
        if steward.fileno() in readable:
            try:
                request, _ = framing.receive(steward)
            except (EOFError, OSError):
                server.end()
            server.serve(request)


class _ForkServer:
    """Forks children on request, and knows their keys."""

    def __init__(self, steward: socket.socket, pipe: tuple[int, int]) -> None:
        self.steward = steward
        self.pipe = pipe
        self.pids: dict[int, str] = {}

    def serve(self, request: Mapping[str, Any]) -> None:
        if request["op"] == "start":
            pid = os.fork()
            if pid == 0:
                self._become(request)
            self.pids[pid] = request["key"]
            framing.send(self.steward, {"event": "started", "key": request["key"], "pid": pid})
        elif request["op"] == "kill":
            for pid in [pid for pid, key in self.pids.items() if key == request["key"]]:
                _signal_group(pid, int(request["signal"]))

    def reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            key = self.pids.pop(pid, None)
            if key is not None:
                _signal_group(pid, signal.SIGKILL)  # what it started goes with it
                code = os.waitstatus_to_exitcode(status)
                framing.send(self.steward, {"event": "exit", "key": key, "pid": pid, "code": code})

    def end(self) -> NoReturn:
        for pid in self.pids:
            _signal_group(pid, signal.SIGKILL)
        os._exit(0)

    def _become(self, request: Mapping[str, Any]) -> NoReturn:
        """In the child: never returns into the loop."""
        code = 127
        try:
            os.setsid()
            _die_with_parent()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # asks for stacks; a session answers it
            self.steward.close()
            for fd in self.pipe:
                os.close(fd)
            _open_streams(request["log"])
            os.environ.clear()  # noqa: TID251 - this process becomes what the request says
            os.environ.update(request["env"])  # noqa: TID251 - its own environment
            os.chdir(request["cwd"])
            if request["cpus"]:
                os.sched_setaffinity(0, request["cpus"])
            code = _run(request["command"], warm=request["warm"])
        except SystemExit as leaving:
            code = _code_of(leaving)
        except BaseException as error:  # noqa: BLE001 - the child must not return into the fork server's loop
            traceback.print_exc()
            code = error.exit_code if isinstance(error, KarezError) else 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def _after_fork() -> None:
    preloaded = sys.modules.get(sys.argv[2]) if len(sys.argv) > 2 else None
    getattr(preloaded, "after_fork", lambda: None)()


def _run(command: list[str], *, warm: bool) -> int:
    if not warm:
        try:
            os.execvp(command[0], command)  # noqa: S606 - running the user's command is the job
        except OSError as error:
            raise SystemExit(f"cannot run {command[0]!r} on this node: {error.strerror}") from error
    _after_fork()
    module, _, function = command[0].partition(":")
    sys.argv = list(command)
    result = getattr(importlib.import_module(module), function)()
    return int(result or 0)


def _code_of(leaving: SystemExit) -> int:
    if leaving.code is None or isinstance(leaving.code, int):
        return leaving.code or 0
    sys.stderr.write(f"{leaving.code}\n")
    return 1


def _open_streams(log: str) -> None:
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _signal_group(pid: int, number: int) -> None:
    for send in (os.killpg, os.kill):
        try:
            send(pid, number)
        except (ProcessLookupError, PermissionError):
            continue


if __name__ == "__main__":
    main()
