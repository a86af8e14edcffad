"""Services and elastic training on one pool, beside fixed parts of it.

Needs the traces: KAREZ_TRACES (default ../shared/traces): an hour of Azure's LLM conversations
(2023), an hour of Mooncake's, and ServeGen's small language models (14 days). What one replica
serves is an assumption, chosen so that 1.2 times the busiest minute (ten minutes) take half of the
pool. Replicas follow the requests by the rules of a live service; a replica starts in `start_s`,
gangs give devices up at the end of a step of 1 s, a request waits for 10 s at most. Runs with more
devices have as many times the requests.
"""

import gzip
import time

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
    """Simulate all traces."""
    rows: list[dict[str, object]] = []
    azure = ("Azure conversations", "azure_llm_2023/AzureLLMInferenceTrace_conv.csv", 518.6, 8)
    mooncake = ("Mooncake conversations", "mooncake/conversation_trace.jsonl", 2141.0, 8)
    servegen = ("ServeGen m-small", "servegen/language_m-small_trace_nonzero.csv.gz", 75.0, 16)
    for (name, path, rate, least), nodes, start_s in (
        (azure, 8, 10.0),
        (azure, 8, 30.0),
        (azure, 125, 10.0),
        (azure, 1000, 10.0),
        (mooncake, 8, 10.0),
        (servegen, 16, 30.0),
    ):
        folder, file = path.split("/")
        gangs = max(8, nodes // 16)
        sharing = Colocation(
            replica=GPU,
            replica_rate=rate,
            training=GangSpec(min=1, want=1, max=-(-nodes * 8 // gangs), each=(GPU,)),
            gangs=gangs,
            start_s=start_s,
            times=nodes / least,
        )
        opened = gzip.open if file.endswith(".gz") else open
        with opened(traces(folder) / file, "rt") as lines:
            demand = read_demand(lines, file, sharing)
        pool = inventories.read_inventory(POOL.format(nodes=nodes), "pool")
        began = time.process_time()
        found = colocate(pool, demand, sharing)
        took_s = time.process_time() - began
        for one in (found.shared, found.halves, found.split):
            rows.append(
                {
                    "trace": name,
                    "devices": nodes * 8,
                    "start_s": start_s,
                    "arrangement": one.name,
                    "unserved_pct": round(one.unserved_pct, 3),
                    "waited_p99_s": one.waited_p99_s,
                    "device_use_pct": round(one.device_use_pct, 1),
                    "of_halves": round(one.device_use_pct / found.halves.device_use_pct, 3),
                    "training_device_h": round(one.training_device_hours, 1),
                    "replicas_mean": round(one.replicas_mean, 1),
                    "replicas_peak": one.replicas_peak,
                    "resizes": one.resizes,
                    "cpu_s": round(took_s, 1) if one is found.shared else "",
                }
            )
    report("services and training on one pool", rows)


if __name__ == "__main__":
    main()
