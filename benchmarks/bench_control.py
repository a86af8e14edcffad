"""One control over 1,000 nodes: 2,000 running workloads, and a gang of 1,024 ranks.

The scheduler, the controllers and the store (SQLite) are the real ones; nodes and ranks are models
without processes on a clock that jumps (tests/sim). So the figures are CPU time of control on one
core, without the network. CPU time of the models is measured apart and left out. There is no peer
to compare with: `threads` names what one thread for each job and node took before.
"""

import gc
import os
import resource
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from report import report

sys.path.insert(0, str(Path(__file__).parent.parent))
from karez.core.settings import Settings
from karez.core.workloads import State
from karez.server.controllers.controller_pool import SLOW_WORKERS, WORKERS
from karez.server.wiring import TRANSFERS
from tests.sim.fake_cloud import FakeCloud
from tests.sim.timeline import Timeline

NODES = int(os.environ.get("NODES", "1000"))
WORKLOADS = int(os.environ.get("WORKLOADS", "2000"))
RANKS = int(os.environ.get("RANKS", "1024"))
STEP_S = 10.0
"""Seconds of a step of each job."""
CORES = 8


@dataclass
class TimedTimeline(Timeline):
    """Adds up the CPU time of what happens on it: that of the models of nodes and ranks."""

    cpu_s: float = 0.0

    def jump_to(self, at: float) -> None:
        """Go there, timed."""
        began_s = time.process_time()
        super().jump_to(at)
        self.cpu_s += time.process_time() - began_s


@dataclass
class Meter:
    """CPU time of control, without that of the models of nodes and ranks."""

    cloud: FakeCloud
    timeline: TimedTimeline
    rows: list[dict[str, object]] = field(default_factory=list)

    def measure(self, what: str, seconds: float, until: State | None = None, job: str = "") -> None:
        """Let this time pass, or less: until a job is in a state."""
        cloud, began = self.cloud, self.cloud.timeline.now()
        cpu_s, models_s = time.process_time(), self.timeline.cpu_s
        while cloud.timeline.now() < began + seconds:
            cloud.run(1.0)
            if until is not None and cloud.state(job) == until:
                break
        spent_s = time.process_time() - cpu_s - (self.timeline.cpu_s - models_s)
        passed_s = cloud.timeline.now() - began
        self.rows.append(
            {
                "what": what,
                "simulated_s": round(passed_s, 1),
                "cpu_s": round(spent_s, 2),
                "share_of_a_core": round(spent_s / passed_s, 3),
            }
        )
        print(self.rows[-1], file=sys.stderr, flush=True)


def main() -> None:
    """Fill the pool with jobs of two ranks, and run; then a gang over all nodes."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    settings = Settings(lease_s=60.0, checkpoint_s=300.0)
    with tempfile.TemporaryDirectory(prefix="kz-") as folder:
        nodes = [f"n{number:04}" for number in range(NODES)]
        timeline = TimedTimeline()
        cloud = FakeCloud(
            Path(folder),
            nodes=nodes,
            cores=CORES,
            settings=settings,
            step_s=STEP_S,
            timeline=timeline,
        )
        meter = Meter(cloud, timeline)
        cloud.look_every(2.0)
        began_s = time.process_time()
        for _ in range(WORKLOADS):
            cloud.submit(ranks=2, steps=10**6, settle=False)
        submit_s = time.process_time() - began_s
        meter.measure(f"{WORKLOADS} jobs of 2 ranks start", 10.0)
        gc.freeze()
        meter.measure(f"{WORKLOADS} jobs run", 60.0)
        job = cloud.submit(ranks=RANKS, steps=10**6, settle=False)
        meter.measure(f"a gang of {RANKS} starts among them", 60.0, State.RUNNING, job)
        meter.measure("all run", 30.0)
        cloud.kill(cloud.living(job)[7])
        meter.measure("a rank of it is killed", 60.0, State.RECOVERING, job)
        meter.measure("it goes on", 60.0, State.RUNNING, job)
        pairs = WORKLOADS * 2 + RANKS
        print(f"submits: {1000 * submit_s / WORKLOADS:.1f} ms CPU each", file=sys.stderr)
        rows = [{**row, "threads": _threads()} for row in meter.rows]
        report("one control, many workloads", rows)
        print(
            f"threads before: {WORKLOADS + 1 + pairs}, one for each job and for each of its nodes"
        )
        print(f"memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
        cloud.close()


def _threads() -> int:
    """Threads of control when its loops and workers run: those of the API are not among them."""
    return threading.active_count() - 1 + WORKERS + SLOW_WORKERS + TRANSFERS + 4


if __name__ == "__main__":
    main()
