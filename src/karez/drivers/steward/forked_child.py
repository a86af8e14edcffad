"""What a child of a fork server does: it becomes the process of a workload that was asked for."""

import importlib
import json
import multiprocessing
import os
import signal
import site
import socket
import stat
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from karez.core.errors import KarezError
from karez.drivers.steward import subreaper
from karez.drivers.steward.sandbox import Sandbox, become_user, enter


def become(order: Path, sandbox: Sandbox | None) -> NoReturn:
    """Become the process that an order describes; never returns.

    The order, with its secrets, is read here alone: what a fork server has read, all of its later
    children could find in their memory.

    Args:
        order: File of the order, which is removed.
        sandbox: The sandbox that this process is in, if any.
    """
    code = 127
    try:
        os.setsid()
        request = json.loads(order.read_bytes())
        order.unlink()
        _prepare(request, sandbox)
        command, is_warm = request["command"], request["warm"]
        if request["environment"] and is_warm and not _use_environment(request["environment"]):
            command, is_warm = _again(request["environment"], command), False
        code = _run(command, warm=is_warm)
    except SystemExit as leaving:
        code = _code_of(leaving)
    except BaseException as error:  # noqa: BLE001 - the child must not return into the fork server's loop
        traceback.print_exc()
        code = error.exit_code if isinstance(error, KarezError) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _prepare(request: Mapping[str, Any], sandbox: Sandbox | None) -> None:
    """Have the streams, variables, limits, user and files of the new process."""
    _set_signals()
    _open_streams(request["log"], request.get("stream", ""))
    _take_environment(request["env"])
    if request["cpus"]:
        os.sched_setaffinity(0, request["cpus"])
    _join(request["control_group"])
    if sandbox is not None:
        if os.isatty(0):
            os.fchown(0, sandbox.user, -1)
        enter(sandbox)
        become_user(sandbox)
    os.chdir(request["cwd"])
    if not request["runs_image"]:  # podman and apptainer need programs with rights of their own
        subreaper.give_up_privileges()


def _join(group: str) -> None:
    """Be held to the limits of a control group; where that fails, checks hold the process alone."""
    if group:
        with suppress(OSError):
            Path(group, "cgroup.procs").write_text("0")


def _take_environment(variables: Mapping[str, str]) -> None:
    own = os.environ  # noqa: TID251 - this process becomes what the order says
    own.clear()
    own.update(variables)


def _set_signals() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # asks for stacks; a session answers it


def _use_environment(folder: str) -> bool:
    """Have the packages of an environment come first.

    Not where it has a package that is imported here already, in the node's version.
    """
    packages = next(Path(folder, "lib").glob("python*")) / "site-packages"
    here = {name.partition(".")[0] for name in sys.modules}
    if here & {path.name.partition(".")[0] for path in packages.iterdir()}:
        return False
    own = list(sys.path)
    sys.path.clear()
    site.addsitedir(str(packages))
    sys.path += [path for path in own if path not in sys.path]
    sys.executable = _python_of(folder)
    sys.prefix = sys.exec_prefix = folder
    multiprocessing.set_executable(sys.executable)
    return True


def _again(folder: str, command: list[str]) -> list[str]:
    """The command that calls the same function in the environment's own Python."""
    return [_python_of(folder), "-P", "-m", "karez.drivers.steward.forked_child", *command]


def _python_of(folder: str) -> str:
    return str(Path(folder, "bin", "python"))


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
    return _call(command)


def _call(command: list[str]) -> int:
    module, _, function = command[0].partition(":")
    sys.argv = list(command)
    result = getattr(importlib.import_module(module), function)()
    return int(result or 0)


def main() -> None:
    """Call the function that the arguments name, in a Python of its own."""
    try:
        code = _call(sys.argv[1:])
    except KarezError as error:
        traceback.print_exc()
        code = error.exit_code
    sys.exit(code)


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
    for fd in {given, out} - {0, 1, 2}:
        os.close(fd)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)


if __name__ == "__main__":
    main()
