"""What tunnels lead to on a node: shells beside a process, its ports, and its files."""

import contextlib
import fcntl
import ipaddress
import os
import socket
import struct
import tarfile
import tempfile
import termios
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from karez.core import environment
from karez.core.errors import BadRequest, NotFound
from karez.core.tunnels import Terminal, TunnelSpec
from karez.drivers.linux import files_as
from karez.drivers.steward.process_table import TrackedProcess

_OF_THE_RANK = (environment.STEWARD, environment.SNAPSHOT_FILE, environment.PROCESS_TOKEN)
"""Variables by which the job's own process is known: a shell beside it is not that process."""
_CONNECT_S = 10.0
SHELL = ("sh", "-c", 'exec "$(command -v bash || command -v sh)" -i')
"""An interactive shell."""
Run = Callable[[Mapping[str, Any], Callable[[int], None]], None]
"""Starts a process of a request to the fork server; the function is told its exit code."""


@dataclass(slots=True, kw_only=True)
class FarEnd:
    """What serves a tunnel on the node."""

    output: int = -1
    """Descriptor that its output is read from."""
    give: int = -1
    """Descriptor that its input is written to."""
    finish: Callable[[], None] = lambda: None
    """Called once its last input was written."""
    end: Callable[[], None] = lambda: None
    """Ends what serves it."""
    is_over: threading.Event = field(default_factory=threading.Event)
    """Set when that has ended."""
    wake: Callable[[], None] = lambda: None
    """Called then."""
    exit_code: int | None = None
    problem: str = ""
    is_terminal: bool = False

    def over(self) -> None:
        """Note that what serves it has ended."""
        self.is_over.set()
        self.wake()

    def close(self) -> None:
        """Close its descriptors."""
        for number in {self.output, self.give} - {-1}:
            with contextlib.suppress(OSError):
                os.close(number)
        self.output = self.give = -1

    def resize(self, terminal: Terminal) -> None:
        """Give its terminal another size."""
        if self.is_terminal and self.output >= 0:
            size = struct.pack("HHHH", terminal.rows, terminal.columns, 0, 0)
            fcntl.ioctl(self.output, termios.TIOCSWINSZ, size)


def open_shell(
    key: str, request: Mapping[str, Any], spec: TunnelSpec, run: Run, socket_path: Path
) -> FarEnd:
    """Start a command with the environment, folder and cores of a process.

    Args:
        key: Key of the new process.
        request: What the fork server was asked for to start that process, with the command.
        spec: The terminal.
        run: Starts the new process.
        socket_path: Where a command without a terminal connects to.

    Raises:
        BadRequest: It has not started.
    """
    env = {name: value for name, value in request["env"].items() if name not in _OF_THE_RANK}
    end, slave, path = FarEnd(), -1, str(socket_path)
    if spec.terminal is not None:
        end.output, slave = os.openpty()
        end.give, end.is_terminal, path = end.output, True, os.ttyname(slave)
        end.resize(spec.terminal)
        env["TERM"] = spec.terminal.name

    def ended(code: int) -> None:
        end.exit_code = code
        if slave >= 0:
            os.close(slave)  # now the terminal is at its end: nobody else has it open
        end.over()

    changed = {"key": key, "env": env, "stream": path, "warm": False}
    if end.is_terminal:
        run({**request, **changed}, ended)
        end.finish = lambda: _ignore(os.write, end.give, b"\x04")  # as Ctrl-D does
        return end
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        try:
            listener.listen(1)
            run({**request, **changed}, ended)
            stream = _accept(listener, end.is_over)
        finally:
            socket_path.unlink()
    return _over_socket(end, stream)


def open_port(process: TrackedProcess, port: int) -> FarEnd:
    """Connect to a port of this host on which a process of the job listens. Raises BadRequest."""
    at = listening_ports(process.subreaper)
    if port not in at:
        there = ", ".join(map(str, sorted(at))) or "none"
        raise BadRequest(
            problem=f"nobody of {process.spec.key} listens on port {port}",
            fix=f"Its ports are: {there}.",
        )
    try:
        stream = socket.create_connection((at[port], port), timeout=_CONNECT_S)
    except OSError as error:
        raise BadRequest(problem=f"port {port} does not answer: {error}") from error
    stream.settimeout(None)
    end = FarEnd()
    end.is_over.set()  # its output alone says when it is at its end
    return _over_socket(end, stream)


def listening_ports(subreaper: int) -> dict[int, str]:
    """TCP ports of all below a subreaper -> an address at which they answer."""
    ports: dict[int, str] = {}
    try:
        family = psutil.Process(subreaper).children(recursive=True)
    except psutil.Error:
        return ports
    for process in family:
        with contextlib.suppress(psutil.Error):
            for connection in process.net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    ports[connection.laddr.port] = _reachable(connection.laddr.ip)
    return ports


def _reachable(ip: str) -> str:
    """An address of this host at which a listener on `ip` answers."""
    address = ipaddress.ip_address(ip)
    if not address.is_unspecified:
        return ip
    return "127.0.0.1" if address.version == 4 else "::1"


def open_copy_out(folder: Path, roots: tuple[Path, ...], path: str, user: int) -> FarEnd:
    """A file or folder of a job as a tar archive, read as a user. Raises BadRequest, NotFound."""
    found = inside(folder, roots, path)
    if not found.exists():
        raise NotFound(noun="path", name=path)
    read, write = os.pipe()
    end = FarEnd(output=read)

    def send() -> None:
        with (
            _as_user(found, roots, user) as source,
            os.fdopen(write, "wb") as file,
            tarfile.open(fileobj=file, mode="w|") as archive,
        ):
            archive.add(source, arcname=found.name)

    _work(end, send)
    return end


def open_copy_in(folder: Path, roots: tuple[Path, ...], path: str, user: int) -> FarEnd:
    """Lays a tar archive out in a folder of a job, as a user. Raises BadRequest."""
    found = inside(folder, roots, path)
    if found.exists() and not found.is_dir():
        raise BadRequest(problem=f"{path} is a file", fix="Name a folder to copy into.")
    read, write = os.pipe()
    end = FarEnd(give=write)

    is_whole = threading.Event()

    def receive() -> None:
        with os.fdopen(read, "rb") as file, _as_user(found, roots, user) as target:
            target.mkdir(parents=True, exist_ok=True)
            with (
                tempfile.TemporaryDirectory(prefix=".copy-", dir=target) as part,
                tarfile.open(fileobj=file, mode="r|") as archive,
            ):
                archive.extractall(part, filter="data")
                while file.read(1 << 16):  # what pads an archive
                    pass
                if not is_whole.is_set():  # a cut between two files looks like the end
                    raise tarfile.ReadError("it was broken off")
                _move_into(target, Path(part))

    def finish() -> None:
        is_whole.set()
        os.close(end.give)
        end.give = -1

    end.finish = finish
    _work(end, receive)
    return end


def _move_into(target: Path, part: Path) -> None:
    """Move all files below a folder to the same places below another, over what is there.

    Raises OSError, before anything is moved, where a file is to take the place of a folder.
    """
    for source in part.rglob("*"):
        place = target / source.relative_to(part)
        if place.exists() and place.is_dir() != source.is_dir():
            raise FileExistsError(f"{place.relative_to(target)} is there as something else")
    for source in sorted(part.rglob("*")):
        place = target / source.relative_to(part)
        if source.is_dir() and not source.is_symlink():
            place.mkdir(exist_ok=True)
        else:
            source.replace(place)


def inside(folder: Path, roots: tuple[Path, ...], path: str) -> Path:
    """A path of a job, relative to its folder. Raises BadRequest where it leads elsewhere."""
    if "\0" in path:
        raise BadRequest(problem="a path has no NUL in it")
    found = (folder / path).resolve()
    if not any(found.is_relative_to(root.resolve()) for root in roots):
        raise BadRequest(
            problem=f"{path} is in none of the job's own folders",
            fix="Name a path below its working folder, $KAREZ_OUT, $KAREZ_INPUTS or "
            "$KAREZ_CHECKPOINT_DIR.",
        )
    return found


@contextlib.contextmanager
def _as_user(path: Path, roots: tuple[Path, ...], user: int) -> Iterator[Path]:
    """Reach a path of a job by the rights of its user, who may change links on the way meanwhile.

    That user may not enter the folders of the node above the job's own: those are open already.
    """
    root = next(root for root in map(Path.resolve, roots) if path.is_relative_to(root))
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with files_as(user):
            yield Path(f"/proc/self/fd/{fd}") / path.relative_to(root)
    finally:
        os.close(fd)


def _work(end: FarEnd, act: Callable[[], None]) -> None:
    """Do it on a thread, and note what went wrong."""

    def run() -> None:
        try:
            act()
        except (OSError, tarfile.TarError) as error:
            end.problem = f"{type(error).__name__}: {error}"
        end.over()

    threading.Thread(target=run, daemon=True).start()


def _over_socket(end: FarEnd, stream: socket.socket) -> FarEnd:
    def half_close(how: int) -> None:
        with socket.socket(fileno=os.dup(end.output)) as same:
            same.shutdown(how)

    def finish() -> None:
        _ignore(half_close, socket.SHUT_WR)

    end.finish, end.end = finish, lambda: _ignore(half_close, socket.SHUT_RDWR)
    end.output = end.give = stream.detach()
    return end


def _accept(listener: socket.socket, is_over: threading.Event) -> socket.socket:
    listener.settimeout(_CONNECT_S / 100)
    for _ in range(100):
        with contextlib.suppress(TimeoutError):
            stream, _address = listener.accept()
            stream.settimeout(None)
            return stream
        if is_over.is_set():
            break
    raise BadRequest(problem="the command has not started", fix="Try again.")


def _ignore(act: Callable[..., object], *args: object) -> None:
    """Do it; that the other side is gone already does not matter."""
    with contextlib.suppress(OSError):
        act(*args)
