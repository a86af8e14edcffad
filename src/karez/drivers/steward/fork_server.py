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
import stat
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from karez.core.errors import KarezError
from karez.drivers.steward import subreaper
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


class _ForkServer:
    """Forks processes on request, each below a subreaper, and knows their keys."""

    def __init__(self, steward: socket.socket, wake: tuple[int, int]) -> None:
        self.steward = steward
        self.wake = wake
        self.processes: dict[int, _Process] = {}
        """Pipe of its subreaper -> process."""

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
        key = request["key"]
        if request["op"] == "start":
            read, write = os.pipe()
            try:
                server, forked = os.getpid(), os.fork()
            except OSError:
                os.close(read)
                os.close(write)
                raise
            if forked == 0:
                self._keep(request, (read, write), server)
            os.close(write)
            pid = int(_line(read) or 0)  # 0: it could not be forked, and `hear` is told so
            self.processes[read] = _Process(key, pid, forked)
            started = {"event": "started", "key": key, "pid": pid, "subreaper": forked}
            framing.send(self.steward, started)
        elif request["op"] == "kill":
            for process in self.processes.values():
                if process.key == key:
                    _signal_group(process.pid, int(request["signal"]))

    def _keep(self, request: Mapping[str, Any], pipe: tuple[int, int], server: int) -> NoReturn:
        """In the child: never returns into the loop."""
        read, write = pipe
        try:
            for fd in (*self.wake, read, *self.processes):
                os.close(fd)
            self.steward.close()
            subreaper.keep(lambda: _become(request), write, server)
        finally:  # as in `_become`, it must not return
            if sys.exc_info()[0] is not None:
                traceback.print_exc()
            os._exit(1)

    def hear(self, pipe: int) -> None:
        """Report that a process has ended, and all that it started; or else that it is lost."""
        process, line = self.processes.pop(pipe), _line(pipe)
        os.close(pipe)
        if not line:  # its subreaper was killed, and it with it
            _signal_group(process.pid, signal.SIGKILL)
        code = int(line) if line else -int(signal.SIGKILL)
        ended = {"event": "exit", "key": process.key, "pid": process.pid, "code": code}
        framing.send(self.steward, ended)

    def reap(self) -> None:
        """Reap ended subreapers, and end what one of them has left."""
        while _reaped():
            pass
        subreaper.end_children(keep=[process.subreaper for process in self.processes.values()])

    def end(self) -> NoReturn:
        for process in self.processes.values():
            _signal_group(process.pid, signal.SIGKILL)
        subreaper.end_children()
        os._exit(0)


def _reaped() -> bool:
    try:
        return os.waitpid(-1, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return False


def _line(pipe: int) -> bytes:
    """A line from a subreaper; empty if it has ended without one."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(pipe, 1)):
        line += byte
    return line


def _become(request: Mapping[str, Any]) -> NoReturn:
    """In the child: never returns into the loop."""
    code = 127
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # asks for stacks; a session answers it
        _open_streams(request["log"], request.get("stream", ""))
        os.environ.clear()  # noqa: TID251 - this process becomes what the request says
        os.environ.update(request["env"])  # noqa: TID251 - its own environment
        os.chdir(request["cwd"])
        if request["cpus"]:
            os.sched_setaffinity(0, request["cpus"])
        if not request.get("runs_image"):  # those who run images without root need such programs
            subreaper.give_up_privileges()
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


def _open_streams(log: str, stream: str) -> None:
    """Have the output go to a log, or both ways to a terminal or a socket."""
    if not stream:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        given = os.open(os.devnull, os.O_RDONLY)
    elif stat.S_ISSOCK(os.stat(stream).st_mode):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(stream)
        given = out = connection.detach()
    else:
        given = out = os.open(stream, os.O_RDWR)  # it becomes the terminal of this new session
    os.dup2(given, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)


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
