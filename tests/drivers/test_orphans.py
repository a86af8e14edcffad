"""Every process of a job ends with it, whatever it did to outlive it."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from karez.core.nodes import NodeId
from tests.drivers.test_steward import JOB, A, exit_of, spec
from tests.fakes import DirectFabric

KEY = "job-1.0.1"
LAUNCHER = """
import os, signal, subprocess, sys, time
MARK = sys.argv[1]
plain = subprocess.Popen(["sleep", MARK])
own = subprocess.Popen(["sleep", MARK], start_new_session=True, env={})
gone = ["sh", "-c", "setsid sleep $0 & echo $!", MARK]
gone = subprocess.Popen(gone, stdout=subprocess.PIPE, env={})
twice = int(gone.stdout.readline())
gone.wait()
told, tell = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print("ready", flush=True)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(tell, b".")
        time.sleep(600)
    os._exit(0)
os.wait()
os.read(told, 1)
HOW
"""

pytestmark = pytest.mark.story


def started(fabric: DirectFabric, how: str = "time.sleep(600)") -> str:
    """Start a launcher; returns what all that it has started have in their command lines."""
    mark = f"{random.randrange(10**6, 10**7)}"
    command = (sys.executable, "-c", LAUNCHER.replace("HOW", how), mark)
    fabric.start(A, spec(*command))
    deadline = time.monotonic() + 20
    while fabric.read_log(A, KEY, 0, 100).data != b"ready\n":
        assert time.monotonic() < deadline
        fabric.poll({A: {JOB: 0}}, 0.05)
    return mark


def running(mark: str) -> int:
    """How many processes of the host have a mark, the launcher included; zombies have none."""
    found = 0
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            found += mark in process.cmdline()
    return found


@pytest.mark.parametrize("how", ["sys.exit(0)", "os._exit(3)", "os.kill(os.getpid(), 9)"])
def test_nobody_is_left_when_a_launcher_has_ended(fabric: DirectFabric, how: str) -> None:
    mark = started(fabric, how)
    exit_of(fabric)
    assert running(mark) == 0


def test_nobody_is_left_after_a_kill_or_with_a_grace_period(fabric: DirectFabric) -> None:
    mark = started(fabric)
    deadline = time.monotonic() + 10
    while running(mark) != 5:  # one that just becomes another program has no command line
        assert time.monotonic() < deadline
    fabric.kill(A, KEY, grace_s=5.0)
    assert exit_of(fabric).data["code"] == -signal.SIGTERM
    assert running(mark) == 0


def test_nobody_is_left_when_the_subreaper_was_killed(fabric: DirectFabric) -> None:
    mark = started(fabric)
    (info,) = fabric.processes(A)
    os.kill(psutil.Process(info.pid).ppid(), signal.SIGKILL)
    assert exit_of(fabric).data["code"] == -signal.SIGKILL
    deadline = time.monotonic() + 10
    while running(mark):
        assert time.monotonic() < deadline


def test_nobody_is_left_when_the_fork_server_was_killed(fabric: DirectFabric) -> None:
    mark = started(fabric)
    (info,) = fabric.processes(A)
    server = psutil.Process(psutil.Process(info.pid).ppid()).ppid()
    os.kill(server, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while running(mark):
        assert time.monotonic() < deadline


def test_a_steward_that_starts_ends_what_an_earlier_one_left(tmp_path: Path) -> None:
    fabric = DirectFabric(tmp_path, ["a"])
    socket_path = fabric.stewards[NodeId("a")].memory / "steward.sock"
    left = subprocess.Popen(["sleep", "7001"], env={"KAREZ_STEWARD": str(socket_path)})
    other = subprocess.Popen(["sleep", "7001"], env={"KAREZ_STEWARD": "elsewhere"})
    fabric.close()
    (tmp_path / "a").rename(tmp_path / "old")
    again = DirectFabric(tmp_path, ["a"])
    try:
        assert left.wait(10) == -signal.SIGKILL
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
        again.close()


def test_a_process_that_is_purged_while_its_files_are_laid_out_never_starts(
    fabric: DirectFabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    steward = fabric.stewards[A]
    stage, may_go = steward._launcher.orders.first, threading.Event()

    def slow_stage(*words: Any) -> Any:
        may_go.wait(10)
        return stage(*words)

    monkeypatch.setattr(steward._launcher.orders, "first", slow_stage)
    fabric.start(A, spec("sh", "-c", f"touch {steward.home}/it-ran; sleep 1000"))
    purging = threading.Thread(target=fabric.purge, args=(A, JOB))
    purging.start()
    deadline = time.monotonic() + 5
    while not steward._table.tracked()[0].is_doomed:
        assert time.monotonic() < deadline
    may_go.set()
    purging.join(5)
    assert not purging.is_alive()
    assert not fabric.processes(A)
    fabric.start(A, spec("true", key="job-1.0.2", epoch=2))  # the fork server has come so far
    exit_of(fabric)
    assert not (steward.home / "it-ran").exists()


def test_a_process_that_cannot_be_forked_ends_and_its_fork_server_goes_on(tmp_path: Path) -> None:
    fabric = DirectFabric(tmp_path, ["a"], preload="tests.drivers.failing_fork")
    try:
        fabric.start(A, spec("gc:disable", warm=True))
        assert exit_of(fabric).data["code"] == -signal.SIGKILL
        fabric.purge(A, JOB)
        fabric.start(A, spec("gc:disable", warm=True, key="job-1.0.2"))
        assert exit_of(fabric).data["code"] == 0
    finally:
        fabric.close()
