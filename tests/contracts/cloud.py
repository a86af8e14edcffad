"""A whole cloud in a folder of its own: `karez up` on free ports."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from karez.client.sdk import Client
from karez.core.jobs import JobSpec
from tests.ports import free_port


def until(condition: Callable[[], bool], *, within_s: float = 60.0, every_s: float = 0.05) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, condition
        time.sleep(every_s)


def kill_rank(client: Client, job: str, rank: int) -> None:
    """Kill the process of a rank once it has one: its pid is 0 before, which means our group."""

    def pid() -> int:
        return client.job(job).status.ranks[rank].pid

    until(lambda: pid() > 0)
    os.kill(pid() or sys.maxsize, signal.SIGKILL)


def kill_all(processes: Iterable[psutil.Process]) -> None:
    """Kill processes one after the other; some end with another before it is their turn."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


@dataclass
class Cloud:
    home: Path
    env: dict[str, str]

    def karez(self, *words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            [sys.executable, "-m", "karez.cli.main", *words],
            env={**os.environ, **self.env},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0 or not check, (words, done.stdout, done.stderr)
        return done

    @contextlib.contextmanager
    def started(self, *words: str) -> Iterator["subprocess.Popen[str]"]:
        """A command that Ctrl-C ends, also where this process was told to ignore it."""
        program = (
            "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
            "from karez.cli.main import main; sys.exit(main(sys.argv[1:]))"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program, *words],
            env={**os.environ, **self.env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def address(self) -> dict[str, object]:
        found: dict[str, object] = json.loads((self.home / "cloud.json").read_text())
        return found

    def control(self) -> int:
        return int(self.address()["parts"]["control"])  # type: ignore[index]

    def client(self) -> Client:
        key = (self.home / "admin.key").read_text()
        return Client(str(self.address()["url"]), key, patience_s=60.0)

    def family(self) -> list[psutil.Process]:
        return psutil.Process(int(str(self.address()["pid"]))).children(recursive=True)


def make_cloud(home: Path, **more: str) -> Cloud:
    env = {
        "KAREZ_HOME": str(home),
        "KAREZ_PORT": str(free_port()),
        "KAREZ_GATEWAY_PORT": str(free_port()),
        "KAREZ_RAY_PORT": str(free_port()),
        **more,
    }
    return Cloud(home=home, env=env)


def batch(name: str, *command: str, **more: object) -> JobSpec:
    return JobSpec(name=name, command=command, **more)  # type: ignore[arg-type]
