"""A job of one project takes what it can on a node where another project's runs (C1)."""

import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from karez.core.artifacts import FileEntry
from karez.core.nodes import Isolation
from karez.core.processes import ProcessSpec
from karez.core.workloads import WorkloadId
from karez.drivers.steward.staging import BlobSource
from karez.drivers.steward.steward import Steward
from tests.contracts.gang import until
from tests.drivers.test_steward import A
from tests.fakes import DirectFabric

pytestmark = [
    pytest.mark.story,
    pytest.mark.skipif(os.geteuid() != 0, reason="a node keeps jobs apart where it runs as root"),
]
VICTIM = """
import ctypes, os, pathlib, socket, time
secret, libc = os.environ["SECRET"].encode(), ctypes.CDLL(None)
libc.shmat.restype = ctypes.c_void_p
at = libc.shmat(libc.shmget(0, 4096, 0o1666), None, 0)
ctypes.memmove(at, secret, len(secret))
for folder in (os.environ["KAREZ_OUT"], os.environ["KAREZ_CHECKPOINT_DIR"], "/tmp", "/dev/shm",
               os.path.dirname(os.environ["KAREZ_SNAPSHOT_FILE"]), os.environ["HOME"]):
    pathlib.Path(folder, "kept").write_bytes(secret)
own = socket.socket(socket.AF_UNIX)
own.bind("/tmp/own.sock")
own.listen()
print("ready", flush=True)
time.sleep(600)
"""
ATTACK = (Path(__file__).parent / "hostile_job.py").read_text()


def process(job: str, project: str, **more: Any) -> ProcessSpec:
    own = {"key": f"{job}.0.1", "workload": WorkloadId(job), "rank": 0, "epoch": 1, "start_id": "1"}
    return ProcessSpec(project=project, **{**own, **more})


def skip_where_jobs_are_not_kept_apart(fabric: DirectFabric) -> None:
    """Such as in a container without the rights for it."""
    (node, *_) = fabric.nodes()
    if node.isolation == Isolation.NONE:
        fabric.close()
        pytest.skip(f"jobs are {node.limits['isolation']}")


@pytest.fixture
def fabric(tmp_path: Path) -> Iterator[DirectFabric]:
    made = DirectFabric(tmp_path, ["a"])
    skip_where_jobs_are_not_kept_apart(made)
    (tmp_path / "a" / "admin.key").write_text("victim-" + secrets.token_hex(12))
    yield made
    made.close()


@pytest.fixture
def node(fabric: DirectFabric) -> Steward:
    return fabric.stewards[A]


def said(node: Steward, key: str) -> str:
    return node.read_log(key, 0, 1 << 20).data.decode(errors="replace")


def script(node: Steward, name: str, text: str) -> FileEntry:
    blobs = BlobSource(folder=node.config.blobs.folder)
    file = node.home / name
    file.write_text(text)
    entry = blobs.store(file, node.home)
    file.unlink()
    return entry


@pytest.mark.parametrize("is_warm", [True, False], ids=["warm", "cold"])
def test_a_hostile_job_gets_nothing_and_leaves_nothing(
    node: Steward, tmp_path: Path, is_warm: bool
) -> None:
    """Forked from the same warm process, or executed."""
    assert node.describe().isolation == Isolation.USERS
    secret, mark = "victim-" + secrets.token_hex(12), "left-" + secrets.token_hex(6)
    targets = [
        *(str(node.home / name) for name in ("admin.key", "users.json", "fork_server.log")),
        *(str(path) for path in (node.home / "work" / "job-b", node.memory / "job-b")),
        *(str(node.memory / name) for name in ("orders", "job-b")),
        "/etc/shadow",
        node.config.blobs.folder,
    ]
    runs = {"command": ("karez.runtime.script:main", "main.py"), "warm": True}
    if not is_warm:
        runs = {"command": ("python", "main.py")}
    code = (script(node, "main.py", VICTIM),)
    node.start(process("job-b", "b", code=code, env={"SECRET": secret}, **runs))
    until(lambda: "ready" in said(node, "job-b.0.1"))
    env = {"TARGETS": json.dumps(targets), "MARK": mark, "HIDDEN": str(node.home)}
    attack = (script(node, "main.py", ATTACK),)
    node.start(process("job-a", "a", code=attack, env=env, **runs))
    until(lambda: not info(node, "job-a.0.1").alive, within_s=60)
    got = json.loads(said(node, "job-a.0.1").splitlines()[-1])
    assert {name: found for name, found in got.items() if found} == {}
    assert info(node, "job-b.0.1").alive
    assert node.describe().problems == ()
    stored = {entry.sha256 for _, entry in node.collect("job-a.0.1")}
    assert hashlib.sha256((node.home / "admin.key").read_bytes()).hexdigest() not in stored
    node.purge(WorkloadId("job-a"))
    assert left_of(mark, tmp_path) == []


def info(node: Steward, key: str) -> Any:
    (found,) = (one for one in node.processes() if one.key == key)
    return found


def has_ended(node: Steward, key: str) -> bool:
    return not info(node, key).alive


def left_of(mark: str, folder: Path) -> list[str]:
    """Processes, files and shared memory of the host that have a mark, or that nobody has."""
    left = [f"process {p.pid}" for p in psutil.process_iter() if mark in " ".join(command(p))]
    places = ("/tmp", "/var/tmp", "/dev/shm", "/run/lock", "/root", "/")
    left += [place for place in places if (Path(place) / mark).exists()]
    left += [str(path) for path in folder.rglob(mark)]
    return left


def command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_the_end_of_a_job_is_the_end_of_all_that_it_started(node: Steward) -> None:
    """More processes than a loop over them could catch: the kernel ends them with the first."""
    mark = f"600.{secrets.randbelow(10**9)}"
    bomb = f"for i in $(seq 200); do (setsid sh -c 'sleep {mark} & sleep {mark}' &) ; done; wait"
    node.start(process("job-a", "a", command=("sh", "-c", f"{bomb}; echo ready; sleep {mark}")))
    until(lambda: "ready" in said(node, "job-a.0.1"), within_s=60)
    node.purge(WorkloadId("job-a"))
    until(lambda: not [p for p in psutil.process_iter() if mark in " ".join(command(p))])


def test_a_job_that_forks_without_end_meets_its_own_limit(node: Steward) -> None:
    node.config = replace(node.config, most_processes=200)
    node._launcher.sandboxes._config = node.config
    mark = f"mark-{secrets.token_hex(6)}"
    bomb = (
        f"import os, time  # {mark}\nwhile True:\n"
        " try: os.fork()\n except OSError: print('full'); time.sleep(9)"
    )
    node.start(process("job-a", "a", command=("python", "-c", bomb)))
    until(lambda: "full" in said(node, "job-a.0.1"))
    node.start(process("job-b", "b", command=("sh", "-c", "true & wait")))
    until(lambda: has_ended(node, "job-b.0.1"))
    assert info(node, "job-b.0.1").exit_code == 0
    node.purge(WorkloadId("job-a"))
    assert not [p for p in psutil.process_iter() if mark in " ".join(command(p))]


def test_a_job_goes_on_in_a_new_sandbox_when_its_own_has_ended(node: Steward) -> None:
    node.start(process("job-a", "a", command=("sleep", "600")))
    until(lambda: info(node, "job-a.0.1").pid > 0)
    first = node._launcher.sandboxes._made[WorkloadId("job-a")].answer["pid"]
    psutil.Process(first).kill()
    until(lambda: not info(node, "job-a.0.1").alive)
    assert info(node, "job-a.0.1").exit_code == -9
    until(lambda: WorkloadId("job-a") not in node._launcher.sandboxes._made)
    node.start(process("job-a", "a", command=("sleep", "600"), key="job-a.0.2"))
    until(lambda: info(node, "job-a.0.2").pid > 0)
    until(lambda: psutil.Process(info(node, "job-a.0.2").pid).uids().real > 1_000_000)


def test_processes_of_a_job_share_what_other_jobs_of_their_project_do_not(node: Steward) -> None:
    """Ranks meet in /dev/shm and /tmp, and see each other's processes; files are the project's."""
    write = "echo own > /dev/shm/met; echo own > /tmp/met; sleep 600"
    node.start(process("job-a", "a", command=("sh", "-c", write)))
    count = "ls /proc | grep -c '^[0-9]'; id -u"
    look = f"until cat /dev/shm/met /tmp/met; do sleep 0.05; done; {count}"
    node.start(process("job-a", "a", command=("sh", "-c", look), key="job-a.1.1", rank=1))
    until(lambda: not info(node, "job-a.1.1").alive)
    *_, processes, user = said(node, "job-a.1.1").split()
    assert int(processes) > 4
    other = f"ls /dev/shm/met /tmp/met; {count}; touch $KAREZ_CACHE/x"
    node.start(process("job-c", "a", command=("sh", "-c", other)))
    until(lambda: not info(node, "job-c.0.1").alive)
    *_, processes, own = said(node, "job-c.0.1").split()
    assert (int(processes) < 7, own, info(node, "job-c.0.1").exit_code) == (True, user, 0)
    node.start(process("job-d", "d", command=("sh", "-c", "ls $KAREZ_CACHE/x || id -u")))
    until(lambda: not info(node, "job-d.0.1").alive)
    assert said(node, "job-d.0.1").split()[-1] not in (user, "0")


def test_a_node_that_cannot_keep_projects_apart_runs_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = "karez.drivers.steward.sandboxes.isolation_problem"
    monkeypatch.setattr(check, lambda *_: "the node agent does not run as root")
    fabric = DirectFabric(tmp_path, ["a"])
    node = fabric.stewards[A]
    try:
        assert node.describe().isolation == Isolation.NONE
        for job, project in (("job-a", "a"), ("job-b", "b"), ("job-c", "a")):
            node.start(process(job, project, command=("true",)))
            key = f"{job}.0.1"
            until(partial(has_ended, node, key))
        assert [info(node, f"job-{name}.0.1").exit_code for name in "abc"] == [0, 127, 0]
        assert "cannot keep those of 'b' apart: the node agent" in info(node, "job-b.0.1").error
    finally:
        fabric.close()
