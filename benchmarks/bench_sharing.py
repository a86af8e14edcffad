"""Services and elastic training on one pool, compared with separate nodes.

Needs the traces: KAREZ_TRACES (default ../shared/traces): an hour of Azure's LLM conversations
(2023) and ServeGen's small language models (several days). The load that one
replica serves is an assumption, chosen so that the peak takes about half the pool; headroom is 1.2
in all runs.
"""

import gzip

from report import report, traces

from karez.core.devices import DeviceKind
from karez.core.gangs import GangSpec
from karez.core.resource_requests import ResourceRequest
from karez.simulation import inventories
from karez.simulation.colocation import colocate
from karez.simulation.colocation_report import Colocation
from karez.simulation.demand import read_demand

POOL = "[[nodes]]\ncount = {nodes}\ngpu = 8\n"
GPU = ResourceRequest(kind=DeviceKind.GPU)


def main() -> None:
    """Simulate both traces."""
    rows: list[dict[str, object]] = []
    for name, path, rate, nodes in (
        ("Azure conversations", "azure_llm_2023/AzureLLMInferenceTrace_conv.csv", 500.0, 8),
        ("ServeGen m-small", "servegen/language_m-small_trace_nonzero.csv.gz", 75.0, 16),
    ):
        folder, file = path.split("/")
        opened = gzip.open if file.endswith(".gz") else open
        with opened(traces(folder) / file, "rt") as lines:
            demand = read_demand(lines, file)
        sharing = Colocation(
            replica=GPU,
            replica_rate=rate,
            training=GangSpec(min=1, want=1, max=nodes * 8, each=(GPU,)),
            start_s=60.0,
        )
        found = colocate(
            inventories.read_inventory(POOL.format(nodes=nodes), "pool"), demand, sharing
        )
        for one in (found.split, found.shared):
            rows.append(
                {
                    "trace": name,
                    "arrangement": one.name,
                    "hours": round(len(demand.load) * demand.window_s / 3600, 1),
                    "unserved_pct": round(one.unserved_pct, 2),
                    "training_device_h": round(one.training_device_hours, 1),
                    "of_split": round(
                        one.training_device_hours / found.split.training_device_hours, 2
                    ),
                    "replicas_mean": round(one.replicas_mean, 1),
                    "replicas_peak": one.replicas_peak,
                    "resizes": one.resizes,
                }
            )
    report("services and training on one pool", rows)


if __name__ == "__main__":
    main()
