"""Job completion times on Philly's eleven busiest projects at a quarter of their nodes.

Needs the trace: KAREZ_TRACES (default ../shared/traces). All policies in one run, as ratios to
FIFO; the peers' policies run in the same scheduling engine and differ only in their rules.
"""

import time
from pathlib import Path

from report import report, traces

from karez.simulation import inventories, workloads
from karez.simulation.queueing import queueing

INVENTORY = Path(__file__).parent.parent / "examples" / "inventories" / "philly-quarter.toml"
SPAN = ("2017-10-01", "2017-12-01")
RUNS = (
    ("fifo", False, None),
    ("sjf", True, None),
    ("backfill", True, 0.36),
    ("karez", False, 0.30),
    ("karez", True, 0.16),
)


def main() -> None:
    """Replay the trace with each policy; FIFO first, as the base of the ratios."""
    nodes = inventories.read_inventory(INVENTORY.read_text(), str(INVENTORY))
    busiest = {node.labels["project"] for node in nodes}
    with (traces("philly") / "philly.csv").open() as file:
        head, *lines = file.readlines()
    chosen = [line for line in lines if SPAN[0] <= line < SPAN[1]]
    jobs = [
        job for job in workloads.read_jobs([head, *chosen], "philly.csv") if job.project in busiest
    ]
    fifo_s = 0.0
    rows: list[dict[str, object]] = []
    for policy, known, bar in RUNS:
        before = time.process_time()
        found = queueing(nodes, jobs, policy=policy, known=known)
        fifo_s = fifo_s or found.jct_s.mean
        rows.append(
            {
                "policy": policy,
                "durations": found.durations,
                "jobs": found.jobs,
                "mean_jct_s": round(found.jct_s.mean),
                "of_fifo": round(found.jct_s.mean / fifo_s, 3),
                "bar": bar or "",
                "p50_queued_s": round(found.queued_s.p50),
                "p99_queued_s": round(found.queued_s.p99),
                "max_queued_s": round(found.queued_s.max),
                "preemptions": found.preemptions,
                "cpu_s": round(time.process_time() - before, 1),
            }
        )
    report("queueing of Philly at a quarter of its nodes", rows)


if __name__ == "__main__":
    main()
