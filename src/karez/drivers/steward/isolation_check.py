"""Finds out whether this host can keep jobs apart, by making a sandbox as a job would get.

Run as `python -m karez.drivers.steward.isolation_check [HOME MEMORY FIRST_USER]`; prints `isolated`
or what is missing. Without arguments it tries it in folders of its own.
"""

import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from karez.core.processes import ProcessSpec
from karez.core.settings import FIRST_USER
from karez.core.workloads import WorkloadId
from karez.drivers.programs import run_program
from karez.drivers.steward.job_files import JobFiles, installed
from karez.drivers.steward.sandbox import Trial, make

USERS = 65_536
"""Numbers of users, from the first on, of which each project gets one."""
ISOLATED = "isolated"
_NAME = "isolation-check"
_LIMIT_S = 30.0


def isolation_problem(home: Path, memory: Path, first_user: int) -> str:
    """Why this host cannot keep jobs apart; empty: it can.

    Args:
        home: Folder of the node agent.
        memory: Its folder in shared memory.
        first_user: The first of the users that projects get.
    """
    command = [sys.executable, "-P", "-m", __name__, str(home), str(memory), str(first_user)]
    code, said = run_program(command, _LIMIT_S)
    last = (said.strip().splitlines() or [f"the check ended with code {code}"])[-1]
    return "" if (code, last) == (0, ISOLATED) else last


def main() -> None:
    """Make a sandbox, run Python in it as a user, and end it."""
    if len(sys.argv) > 1:
        _try(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
        return
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryDirectory() as memory:
        (Path(memory) / "steward.sock").touch()
        _try(Path(home), Path(memory), FIRST_USER)


def _try(home: Path, memory: Path, user: int) -> None:
    if os.geteuid() != 0:
        sys.stdout.write("the node agent does not run as root\n")
        return
    if not _is_mapped(user + USERS):
        sys.stdout.write(f"users {user} to {user + USERS} do not exist in this container\n")
        return
    files, workload = JobFiles(home, memory), WorkloadId(_NAME)
    spec = ProcessSpec(key=_NAME, workload=workload, rank=0, epoch=0, command=())
    paths = [sys.executable, *map(str, installed())]
    try:
        mounts = files.mounts(spec, user)
        pid, _ = make(mounts, lambda: None, Trial(user=user, paths=paths))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        sys.stdout.write(f"{ISOLATED}\n")
    except OSError as error:
        sys.stdout.write(f"{error}\n")
    finally:
        for folder in files.folders(workload):
            shutil.rmtree(folder, ignore_errors=True)


def _is_mapped(user: int) -> bool:
    """Whether a user's number means anything in this container; see user_namespaces(7)."""
    ranges = [line.split() for line in Path("/proc/self/uid_map").read_text().splitlines()]
    return any(int(first) <= user < int(first) + int(count) for first, _, count in ranges)


if __name__ == "__main__":
    main()
