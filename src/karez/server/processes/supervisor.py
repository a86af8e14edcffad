"""Starts the processes of a cloud on this host, restarts them when they die, and ends them all."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

from karez.core.environment import of_setting
from karez.core.errors import KarezError, StartFailed
from karez.core.settings import Settings
from karez.server.home import Home
from karez.server.processes.child import Child, now
from karez.server.processes.descendants import adopt_orphans, end_descendants
from karez.server.processes.preflight import check_host
from karez.server.processes.report import Report
from karez.server.wiring import (
    node_name,
    raise_limits,
    ray_env,
    refuse_emulation_beside_real_devices,
)
from karez.vault.keys import read_or_make, write_private

READY_LIMIT_S = 90.0
STOP_S = 15.0
"""Seconds that a program may take to end; control has nodes to stop where Ray is not ours."""


def run_supervise(settings: Settings, report: Report) -> int:
    """Supervise a cloud until SIGTERM or SIGINT. Returns the exit code."""
    return Supervisor(settings, report).run()


class Supervisor:
    """Supervises the programs of a cloud in the foreground until SIGTERM or SIGINT."""

    def __init__(self, settings: Settings, report: Report) -> None:
        """Prepare; `report` is called with progress, then with `ready` or `error`."""
        self.settings = settings
        self.report = report
        self.home = Home.of(settings)
        self._ray_folder = ""
        self._children: dict[str, Child] = {}
        self._stopping = False

    def run(self) -> int:
        """Start all programs, restart those that die, stop all. Returns the exit code."""
        try:
            self.home.lock("cloud")
        except KarezError as error:
            return self._refuse(error)  # another's cloud: nothing here is ours to stop
        try:
            check_host(self.settings, self.home.path)
            refuse_emulation_beside_real_devices(self.settings.emulate)
            adopt_orphans()
            raise_limits()  # each caller of the gateway is an open file
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
            self._restart_dead()
            _pause(0.2)
        self._stop_all()
        return 0

    def _refuse(self, error: KarezError) -> int:
        problem = {"code": error.code, "what": error.what(), "hint": error.hint()}
        self.report({"error": {**problem, "fields": error.facts()}})
        return 1

    def _start_all(self) -> None:
        read_or_make(self.home.ray_token)
        python = [sys.executable, "-P", "-m", "karez.server.processes.main"]
        env = {**os.environ, **_as_environment(self.settings)}  # noqa: TID251 - handed on
        if not self.settings.ray_address:
            self._ray_folder = tempfile.mkdtemp(prefix="kz-")
            self._add("ray", self._ray_command(), {**env, **ray_env(self.settings, self.home)})
        self._add("control", [*python, "control"], env)
        for folder in (self.home.gateway_rows, self.home.gateway_metrics):
            shutil.rmtree(folder, ignore_errors=True)  # of the gateway that ran before
        for number in range(self.settings.gateway_processes):
            name = f"gateway-{number}" if number else "gateway"
            self._add(name, [*python, "gateway", str(number)], env)
        for child in self._children.values():
            self._start(child)

    def _add(self, name: str, command: list[str], env: dict[str, str]) -> None:
        log = self.home.path / "logs" / f"{name}.log"
        self._children[name] = Child(name=name, command=command, env=env, log=log)

    def _ray_command(self) -> list[str]:
        settings = self.settings
        return [
            sys.executable,
            "-P",
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
            f"--temp-dir={self._ray_folder}/r",  # Ray opens its own folder to everybody
            f"--labels=karez-host={node_name(settings)}",
        ]

    def _start(self, child: Child) -> None:
        self.report({"starting": child.name})
        child.start()

    def _wait_ready(self) -> None:
        url = f"http://{self.settings.host}:{self.settings.port}/api/v1/ready"
        gateway = f"http://{self.settings.host}:{self.settings.gateway_port}/health"
        deadline = now() + READY_LIMIT_S
        waiting = [url, gateway]
        while waiting and not self._stopping:
            if _is_up(waiting[0]):
                waiting.pop(0)
                continue
            dead = [child for child in self._children.values() if child.has_died()]
            if dead:
                raise StartFailed(part=dead[0].name, detail=dead[0].last_line())
            if now() > deadline:
                raise StartFailed(part="The cloud", detail=f"not ready within {READY_LIMIT_S} s.")
            _pause(0.05)

    def _restart_dead(self) -> None:
        """Restart children that have died, more slowly the more often they die."""
        for child in self._children.values():
            if child.has_died() and child.may_restart():
                self._start(child)
                self._write_address()

    def _write_address(self) -> None:
        settings = self.settings
        address = {
            "url": f"http://{settings.host}:{settings.port}",
            "gateway": f"http://{settings.host}:{settings.gateway_port}/v1",
            "pid": os.getpid(),
            "parts": {c.name: c.process.pid for c in self._children.values() if c.process},
        }
        write_private(self.home.path / "cloud.json", json.dumps(address))

    def _ask_stop(self, _number: int, _frame: object) -> None:
        self._stopping = True

    def _stop_all(self) -> None:
        names = sorted(self._children, reverse=True)  # gateways before what they call
        children = [self._children[name] for name in names if name != "ray"]
        for child in children:
            if child.process is not None and child.is_running():
                child.process.terminate()
        for child in children:
            if child.process is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.process.wait(STOP_S)
        end_descendants()
        for path in (self.home.path / "node").glob("memory.path"):
            shutil.rmtree(path.read_text(), ignore_errors=True)
            path.unlink(missing_ok=True)
        (self.home.path / "cloud.json").unlink(missing_ok=True)
        if self._ray_folder:
            shutil.rmtree(self._ray_folder, ignore_errors=True)


def _as_environment(settings: Settings) -> dict[str, str]:
    return {of_setting(name): str(getattr(settings, name)) for name in Settings.__slots__}


def _is_up(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own address
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _pause(seconds: float) -> None:
    time.sleep(seconds)  # noqa: TID251 - a main loop between two checks
