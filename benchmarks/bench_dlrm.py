"""Multi-resource placement of the DLRM trace: cores, GPUs, memory, disk and network cards.

Needs the trace: KAREZ_TRACES (default ../shared/traces): Alibaba's disaggregated DLRM serving
(cluster-trace-gpu-v2025). Its nodes are not published: the
benchmark assumes nodes that hold the largest instances, once enough for the trace and once too few.
Every step is checked for resources that are allocated twice.
"""

import time
from collections.abc import Sequence

from report import report, traces

from karez.core.nodes import Node
from karez.scheduling.engine import SchedulingEngine
from karez.scheduling.placement.scores import Policy
from karez.simulation import inventories, workloads
from karez.simulation.partitions import Hooks, replay_of
from karez.simulation.queueing import rules_of
from karez.simulation.resource_usage import kinds_used
from karez.simulation.trace_job import TraceJob

NODES = """
[[nodes]]
name = "hn"
count = {hn}
gpu = 8
cpu = 128
memory = "1TiB"
dpu = 2
storage = "8TiB"
[[nodes]]
name = "cn"
count = {cn}
cpu = 192
memory = "1TiB"
dpu = 1
storage = "2TiB"
"""
SIZES = ((520, 2900), (470, 2650))
POLICIES = (("best-fit", Policy.BEST_FIT), ("karez", Policy.KAREZ))


def main() -> None:
    """Replay the trace, first come first served, on two pools with two placement policies."""
    path = traces("alibaba_v2025_dlrm") / "disaggregated_DLRM_trace.csv"
    with path.open() as file:
        jobs = workloads.read_jobs(file, "trace")
    rows: list[dict[str, object]] = []
    for hn, cn in SIZES:
        nodes = inventories.read_inventory(NODES.format(hn=hn, cn=cn), "pool")
        for name, policy in POLICIES:
            rows.append({"nodes": f"{hn}+{cn}", "policy": name, **run(nodes, jobs, policy)})
    report("multi-resource placing of the DLRM trace", rows)


def run(nodes: Sequence[Node], jobs: Sequence[TraceJob], policy: Policy) -> dict[str, object]:
    """Replay the trace once, and count resources that were allocated twice."""
    before = time.process_time()
    overdrawn = 0

    def count_overdrawn(engine: SchedulingEngine, _at: float) -> None:
        nonlocal overdrawn
        arrays = engine.cluster.pool.inventory.arrays
        overdrawn += int((arrays.bulk < 0).sum() + (arrays.free < 0).sum())

    rules = rules_of("fifo", known=False)
    replay, left_out = replay_of(nodes, jobs, rules, Hooks(on_end=int), known=False)
    replay.engine_log.scores = policy
    replay.on_step = count_overdrawn
    outcomes = replay.run()
    last = max(job.arrives_s + job.runs_s for job in jobs)
    held = {use.kind: use for use in kinds_used([replay], nodes, last)}
    waited = [outcome.queued_s for outcome in outcomes]
    return {
        "jobs": len(outcomes),
        "left_out": left_out,
        "overdrawn": overdrawn,
        "waited": sum(wait > 1.0 for wait in waited),
        "mean_wait_s": round(sum(waited) / len(waited), 1),
        **{f"{kind}_pct": round(held[kind].peak_pct, 1) for kind in sorted(held)},
        "cpu_s": round(time.process_time() - before, 1),
    }


if __name__ == "__main__":
    main()
