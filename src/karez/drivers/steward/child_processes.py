"""The node agent's own children: fork servers, which start all others, and the replica server."""

import contextlib
import importlib.util
import json
import os
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from karez.core import environment
from karez.core.messages.replicas import DropJob
from karez.drivers.steward.replica_server import dial, token_of
from karez.transport import framing

KEEP_ENV = (
    *("PATH", "HOME", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "TMPDIR"),
    *("CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF", "DOCKER_HOST", "XDG_RUNTIME_DIR"),
)
"""Variables that processes inherit from the agent; Ray's token is not among them."""


_OF_THE_SERVER = ("op", "key", "signal", "sandbox", "ticket", "mounts")
"""Fields of a request that the server itself needs."""


class ForkServerClient:
    """A fork server and the connection to it."""

    def __init__(
        self,
        log: Path,
        orders: Path,
        preload: str,
        on_report: Callable[[Mapping[str, Any] | None], None],
        *,
        python: str = "",
        accelerators: Sequence[str] = (),
    ) -> None:
        """Start a fork server. `on_report` gets each report, and None once the server has ended.

        What it prints goes to `log`; orders, with their secrets, lie in the folder `orders` until
        their process has read them: the server does not, of which all its processes are copies.
        `python` is the interpreter, by default this one; `accelerators` are the kinds that this
        node has.
        """
        self._on_report, self._orders = on_report, orders
        self._lock = threading.Lock()
        self._connection, theirs = socket.socketpair()
        # -P: a module of the folder in which the cloud was started is none of ours
        python = python or sys.executable
        command = [python, "-P", "-m", "karez.drivers.steward.fork_server"]
        command.append(str(theirs.fileno()))
        if preload:
            command += [preload, _import_root(preload)]
        env = inherited()
        env.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
        # asked by CUDA itself, torch would remember for its children that there is no GPU
        env.update(HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="", PYTORCH_NVML_BASED_CUDA_CHECK="1")
        env[environment.ACCELERATORS] = ",".join(accelerators)
        with log.open("ab") as file:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                command,
                pass_fds=[theirs.fileno()],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        theirs.close()
        threading.Thread(target=self._listen, daemon=True).start()

    def ask(self, request: Mapping[str, Any]) -> None:
        """Send a request.

        Raises:
            OSError: The fork server has ended.
            ValueError: The request is too long.
        """
        own = {name: request[name] for name in _OF_THE_SERVER if name in request}
        if request.get("op") == "start":
            own["order"] = str(self._write(request))
        with self._lock:
            framing.send(self._connection, own)

    def _write(self, request: Mapping[str, Any]) -> Path:
        text = json.dumps(request).encode()
        if len(text) > framing.HEAD_BYTES:
            raise ValueError(f"an order of {len(text)} bytes is too long")
        path = self._orders / secrets.token_hex(16)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(text)
        return path

    def stop(self) -> None:
        """Close the connection: the server kills its children and ends."""
        with contextlib.suppress(OSError):  # it has ended already
            self._connection.shutdown(socket.SHUT_RDWR)
        _wait(self._process)

    def _listen(self) -> None:
        try:
            while True:
                report, _ = framing.receive(self._connection)
                self._on_report(report)
        except (EOFError, OSError):
            self._connection.close()
            _wait(self._process)  # and with it all that it has started
            self._on_report(None)


class ReplicaServerProcess:
    """This node's replica server, restarted at the same port whenever it ends; ranks send again."""

    def __init__(self, address: str, token: str, memory: Path) -> None:
        """Start a replica server at a port of its own choice."""
        self._address, self._token, self._memory = address, token, memory
        self._is_stopped = threading.Event()
        self.port = 0
        self._process = self._start()
        threading.Thread(target=self._restart, daemon=True).start()

    def kill(self) -> None:
        """Kill the server, as a fault would."""
        self._process.kill()

    def drop(self, job: str) -> None:
        """Have the server drop the replicas of a job."""
        try:
            address = f"{self._address}:{self.port}"
            with dial(address, token_of(self._token, job), job) as peer:
                framing.send_message(peer, DropJob(job=job))
                framing.receive(peer)
        except (OSError, EOFError, ValueError):
            return  # a server that has ended holds nothing

    def stop(self) -> None:
        """Close the server's standard input, on which it ends."""
        self._is_stopped.set()
        if self._process.stdin:
            self._process.stdin.close()
        _wait(self._process)
        if self._process.stdout:
            self._process.stdout.close()

    def _start(self) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(  # noqa: S603 - our own program
            [
                sys.executable,
                "-P",
                "-m",
                "karez.drivers.steward.replica_server",
                self._address,
                str(self.port),
                str(self._memory),
            ],
            env={**inherited(), environment.REPLICA_TOKEN: self._token},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        printed = process.stdout.readline() if process.stdout else b""
        self.port = int(printed or self.port)
        return process

    def _restart(self) -> None:
        while True:
            self._process.wait()
            if self._is_stopped.wait(0.01):
                return
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    stream.close()
            self._process = self._start()
            if self._is_stopped.is_set():
                self._process.kill()


def _import_root(module: str) -> str:
    """The folder below which a module is found."""
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # its package is missing: the fork server says so
        spec = None
    found = Path(spec.origin if spec is not None and spec.origin else os.devnull)
    return str([*found.parents, found.root][module.count(".")])


def inherited(*more: str) -> dict[str, str]:
    """The part of this process's environment that its children inherit.

    `more` are beginnings of further names, in capital letters.
    """
    own = os.environ  # noqa: TID251 - agent's own
    kept = {k: own[k] for k in own if k in KEEP_ENV or k.upper().startswith(more)}
    first = str(Path(sys.executable).parent)  # `python` in a command is the node's, torch and all
    return {**kept, "PATH": os.pathsep.join(filter(None, (first, kept.get("PATH"))))}


def _wait(process: "subprocess.Popen[bytes]") -> None:
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
