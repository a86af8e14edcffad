"""Starts the processes of a cloud on this host, keeps them up, and leaves none behind."""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec

import psutil

from karez.core.environment import of_setting
from karez.core.errors import KarezError, MissingPart, PortTaken, StartFailed, StorageFull
from karez.core.settings import Settings
from karez.server.home import Home
from karez.server.wiring import node_name, ray_env
from karez.vault.keys import read_or_make, write_private

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
PR_SET_PDEATHSIG = 1  # linux/prctl.h
READY_LIMIT_S = 90.0
STOP_S = 15.0
"""How long a part may take to end by itself; control has nodes to stop where Ray is not ours."""
FIRST_PAUSE_S, LAST_PAUSE_S, RECENT_S = 0.25, 4.0, 60.0
"""A part that dies is started again at once, then ever more slowly while it keeps dying."""
SHM_ROOM_BYTES = 64 << 20
"""Below this, no rank could keep two snapshots of even a small adapter."""


@dataclass(slots=True)
class _Part:
    """One child: how to start it, and how it fares."""

    name: str
    command: Sequence[str]
    env: dict[str, str]
    process: "subprocess.Popen[bytes] | None" = None
    starts: list[float] = field(default_factory=list)


class Supervisor:
    """Runs in the foreground until SIGTERM or SIGINT."""

    def __init__(self, settings: Settings, report: Callable[[dict[str, object]], None]) -> None:
        """`report` gets progress, then `ready` or `error`."""
        self.settings = settings
        self.report = report
        self.home = Home.of(settings)
        self._ray_folder = ""
        self._parts: dict[str, _Part] = {}
        self._stopping = False

    def run(self) -> int:
        """Start everything, watch over it, stop everything."""
        try:
            self.home.lock("cloud")
        except KarezError as error:
            return self._refuse(error)  # another's cloud: nothing here is ours to stop
        try:
            self._check()
            self._adopt_orphans()
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, self._ask_stop)
            self._start_all()
            self._wait_ready()
        except KarezError as error:
            self._stop_all()
            return self._refuse(error)
        self._write_address()
        self.report({"ready": True, "pid": os.getpid()})
        while not self._stopping:
            self._revive()
            _pause(0.2)
        self._stop_all()
        return 0

    def _refuse(self, error: KarezError) -> int:
        problem = {"code": error.code, "what": error.what(), "hint": error.hint()}
        self.report({"error": {**problem, "fields": error.facts()}})
        return 1

    def _check(self) -> None:
        settings = self.settings
        if find_spec("ray") is None:
            raise MissingPart(
                part="Ray", needed_for="running anything", install="pip install 'karez[server]'"
            )
        ports = [settings.port, settings.gateway_port]
        if not settings.ray_address:
            ports.append(settings.ray_port)
        for port in ports:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((settings.host, port))
                except OSError as error:
                    raise PortTaken(port=port) from error
        if shutil.disk_usage("/dev/shm").free < SHM_ROOM_BYTES:  # noqa: S108 - is meant
            raise StorageFull(path="/dev/shm", wanted_bytes=SHM_ROOM_BYTES)  # noqa: S108 - is meant
        if shutil.disk_usage(self.home.path).free < SHM_ROOM_BYTES:
            raise StorageFull(path=str(self.home.path), wanted_bytes=SHM_ROOM_BYTES)

    def _adopt_orphans(self) -> None:
        """What children leave behind becomes ours, so that we can end it."""
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)

    def _start_all(self) -> None:
        read_or_make(self.home.ray_token)
        python = [sys.executable, "-m", "karez.server.processes.main"]
        env = {**os.environ, **_as_environment(self.settings)}  # noqa: TID251 - handed on
        if not self.settings.ray_address:
            self._ray_folder = tempfile.mkdtemp(prefix="kz-")
            self._parts["ray"] = _Part(
                "ray", self._ray_command(), {**env, **ray_env(self.settings, self.home)}
            )
        self._parts["control"] = _Part("control", [*python, "control"], env)
        self._parts["gateway"] = _Part("gateway", [*python, "gateway"], env)
        for part in self._parts.values():
            self._start(part)

    def _ray_command(self) -> list[str]:
        settings = self.settings
        return [
            sys.executable,
            "-m",
            "ray.scripts.scripts",
            "start",
            "--head",
            "--block",
            f"--node-ip-address={settings.host}",
            f"--port={settings.ray_port}",
            "--include-dashboard=false",
            "--disable-usage-stats",
            "--include-log-monitor=false",
            f"--object-store-memory={settings.object_store_bytes}",
            "--num-cpus=2",
            f"--temp-dir={self._ray_folder}",
            f"--labels=karez-host={node_name(settings)}",
        ]

    def _start(self, part: _Part) -> None:
        self.report({"starting": part.name})
        log = self.home.path / "logs" / f"{part.name}.log"
        fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(fd, "ab") as file:
            part.process = subprocess.Popen(  # noqa: S603 - our own programs
                list(part.command),
                env=part.env,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        part.starts.append(_now())

    def _wait_ready(self) -> None:
        url = f"http://{self.settings.host}:{self.settings.port}/api/v1/ready"
        gateway = f"http://{self.settings.host}:{self.settings.gateway_port}/health"
        deadline = _now() + READY_LIMIT_S
        waiting = [url, gateway]
        while waiting and not self._stopping:
            if _is_up(waiting[0]):
                waiting.pop(0)
                continue
            dead = [p for p in self._parts.values() if p.process and p.process.poll() is not None]
            if dead:
                raise StartFailed(part=dead[0].name, detail=self._last_words(dead[0].name))
            if _now() > deadline:
                raise StartFailed(part="The cloud", detail=f"not ready within {READY_LIMIT_S} s.")
            _pause(0.05)

    def _last_words(self, name: str) -> str:
        lines = (self.home.path / "logs" / f"{name}.log").read_text(errors="replace").splitlines()
        return (lines or ["it said nothing."])[-1][:300]

    def _revive(self) -> None:
        """Start again what has died, more slowly the more often it dies."""
        for part in self._parts.values():
            if part.process is None or part.process.poll() is None:
                continue
            recent = [at for at in part.starts if _now() - at < RECENT_S]
            pause_s = min(FIRST_PAUSE_S * 2.0 ** (len(recent) - 1), LAST_PAUSE_S)
            if not recent or _now() - part.starts[-1] > pause_s:
                self._start(part)
                self._write_address()

    def _write_address(self) -> None:
        settings = self.settings
        address = {
            "url": f"http://{settings.host}:{settings.port}",
            "gateway": f"http://{settings.host}:{settings.gateway_port}/v1",
            "pid": os.getpid(),
            "parts": {name: part.process.pid for name, part in self._parts.items() if part.process},
        }
        write_private(self.home.path / "cloud.json", json.dumps(address))

    def _ask_stop(self, _number: int, _frame: object) -> None:
        self._stopping = True

    def _stop_all(self) -> None:
        for name in ("gateway", "control"):
            part = self._parts.get(name)
            if part is not None and part.process is not None and part.process.poll() is None:
                part.process.terminate()
        for name in ("gateway", "control"):
            part = self._parts.get(name)
            if part is not None and part.process is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    part.process.wait(STOP_S)
        end_descendants()
        for path in (self.home.path / "node").glob("memory.path"):
            shutil.rmtree(path.read_text(), ignore_errors=True)
            path.unlink(missing_ok=True)
        (self.home.path / "cloud.json").unlink(missing_ok=True)
        if self._ray_folder:
            shutil.rmtree(self._ray_folder, ignore_errors=True)


def end_descendants() -> None:
    """SIGKILL everything below us, again and again until nothing is left. Orphans are ours too."""
    for _ in range(200):
        children = psutil.Process().children(recursive=True)
        if not children:
            return
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(children, timeout=0.5)
        _reap()


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _as_environment(settings: Settings) -> dict[str, str]:
    return {of_setting(name): str(getattr(settings, name)) for name in Settings.__slots__}


def _is_up(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own address
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _now() -> float:
    return time.monotonic()  # noqa: TID251 - a main loop owns its clock


def _pause(seconds: float) -> None:
    time.sleep(seconds)  # noqa: TID251 - as above
