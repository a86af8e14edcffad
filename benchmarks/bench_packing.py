"""Fractional packing of the openb trace, compared with its authors' published figures.

Needs the trace: KAREZ_TRACES (default ../shared/traces). Published: mean of seeds 42-51 of the
artifact of Q. Weng et al., USENIX ATC 2023 (expected_results); the benchmark uses ten random
orders, too.
"""

import time

from report import report, traces

from karez.simulation import openb
from karez.simulation.packing import packing

PUBLISHED = {  # trace: (BestFit, FGD) percent allocated at 100% arrived
    "default": (92.86, 95.23),
    "gpushare40": (91.44, 93.96),
    "gpushare60": (89.06, 91.25),
    "gpushare80": (86.66, 89.08),
    "gpushare100": (84.62, 86.64),
}
SEEDS = tuple(range(42, 52))


def main() -> None:
    """Pack every mix with every policy."""
    folder = traces("openb")
    with (folder / "openb_node_list_gpu_node.csv").open() as file:
        nodes = openb.read_nodes(file, "nodes")
    rows: list[dict[str, object]] = []
    for mix, (best_fit, fgd) in PUBLISHED.items():
        with (folder / f"openb_pod_list_{mix}.csv").open() as file:
            pods = openb.read_pods(file, mix)
        for policy, published in (("best-fit", best_fit), ("fgd", fgd), ("karez", None)):
            before = time.process_time()
            found = packing(nodes, pods, policy=policy, seeds=SEEDS, load=1.3)
            rows.append(
                {
                    "trace": mix,
                    "policy": policy,
                    "allocated_pct": round(found.allocated_pct_at_100 or 0, 2),
                    "sd": round(found.allocated_pct_at_100_sd or 0, 2),
                    "published": published or "",
                    "fragmented_pct": round(found.fragmented_pct_at_100 or 0, 2),
                    "cpu_s": round(time.process_time() - before, 1),
                }
            )
    report("packing of openb at 100% arrived", rows)


if __name__ == "__main__":
    main()
