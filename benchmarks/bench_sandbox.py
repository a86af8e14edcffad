"""What a job's sandbox costs at the start of its processes.

Claim: a process starts at most 30 ms later in a sandbox than without one. The peer is unshare(1)
with setpriv(1), of util-linux, which execute a program in namespaces of its own as another user.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from report import report

from karez.core.nodes import Isolation
from karez.core.processes import ProcessSpec
from karez.core.workloads import WorkloadId
from karez.drivers.steward.config import StewardConfig
from karez.drivers.steward.staging import BlobSource
from karez.drivers.steward.steward import Steward

STARTS = 40
WARM, COLD = ("gc:disable",), ("true",)
CLAIM_S = 0.030


def main() -> None:
    """Start processes in turn, with and without sandboxes, and compare."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain, kept = node(folder / "plain", shared_user=True), node(folder / "kept")
        try:
            if kept.describe().isolation == Isolation.NONE:
                print(f"skipped: {kept.describe().limits['isolation']}")
                return
            rows = [
                compare(what, command, plain, kept, is_first=is_first)
                for what, command in (("forked, torch imported", WARM), ("executed", COLD))
                for is_first in (True, False)
            ]
        finally:
            plain.stop()
            kept.stop()
    report("sandbox", [*rows, peer()])
    late = [row for row in rows if float(str(row["added_ms"])) > 1000 * CLAIM_S]
    if late:
        sys.exit(f"more than {1000 * CLAIM_S:.0f} ms later: {late}")


def node(home: Path, *, shared_user: bool = False) -> Steward:
    """A node agent that has torch imported."""
    home.mkdir()
    config = StewardConfig(
        node=home.name,
        address="127.0.0.1",
        home=str(home),
        token="t",
        blobs=BlobSource(folder=str(home / "blobs")),
        preload="karez.runtime.preload",
        shared_user=shared_user,
    )
    made = Steward(config)
    once(made, "warm-up", WARM)
    return made


def once(steward: Steward, job: str, command: tuple[str, ...], number: int = 0) -> float:
    """Seconds from the order until a process has done nothing and ended."""
    workload = WorkloadId(job)
    key = f"{job}.{number}.1"
    spec = ProcessSpec(
        key=key, workload=workload, rank=number, epoch=1, command=command, warm=command == WARM
    )
    began = time.perf_counter()
    steward.start(spec)
    seen = 0
    while True:
        for event in steward.poll({workload: seen}, 10.0).events:
            seen = event.seq
            if event.key == key and event.type == "exit":
                if event.data["code"] != 0:
                    raise SystemExit(str(event.data))
                return time.perf_counter() - began


def compare(
    what: str, command: tuple[str, ...], plain: Steward, kept: Steward, *, is_first: bool
) -> dict[str, object]:
    """Medians of starts in turn: of the first process of jobs, or of later ones of one job."""
    nodes = {"without": plain, "in a sandbox": kept}
    took: dict[str, list[float]] = {name: [] for name in nodes}
    for number in range(STARTS):
        for name, steward in nodes.items():
            job = f"job-{what[:4]}-{number if is_first else 'same'}-{is_first}"
            took[name].append(once(steward, job, command, 0 if is_first else number))
            if is_first:
                steward.purge(WorkloadId(job))
    without, inside = median(took["without"]), median(took["in a sandbox"])
    return {
        "process": f"{what}, {'first of its job' if is_first else 'a later one'}",
        "without_ms": round(1000 * without, 1),
        "sandbox_ms": round(1000 * inside, 1),
        "added_ms": round(1000 * (inside - without), 1),
    }


def peer() -> dict[str, object]:
    """The same namespaces and another user, by programs that are executed."""
    words = ("--pid", "--fork", "--mount-proc", "--ipc", "setpriv", "--reuid", "1900000000")
    inside = ("unshare", *words, "--regid", "1900000000", "--clear-groups", "true")
    without, kept = timed(("true",)), timed(inside)
    return {
        "process": "peer: unshare and setpriv (util-linux), executed",
        "without_ms": round(1000 * without, 1),
        "sandbox_ms": round(1000 * kept, 1),
        "added_ms": round(1000 * (kept - without), 1),
    }


def timed(command: tuple[str, ...]) -> float:
    """Median seconds of a program."""
    took = []
    for _ in range(STARTS):
        began = time.perf_counter()
        subprocess.run(command, check=True)
        took.append(time.perf_counter() - began)
    return median(took)


if __name__ == "__main__":
    main()
