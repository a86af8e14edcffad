"""False alarms of failure detection: a gang on an overloaded machine.

A gang of four ranks trains for MINUTES (30) while LOAD (8) processes compute as fast as they can,
in bursts. No fault is injected, so each receipt and each restart is a false alarm. The report
includes the load average.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean
from typing import Any

from bench_recovery import free_port
from report import report

from karez.client.sdk import Client
from karez.core.gang_syntax import make_gang
from karez.core.jobs import JobSpec
from karez.core.workloads import State, WorkloadKind

MINUTES, LOAD = float(os.environ.get("MINUTES", "30")), int(os.environ.get("LOAD", "8"))
BURN = "import time,random\nwhile True:\n e=time.time()+random.uniform(1,20)\n while time.time()<e: pass\n time.sleep(random.uniform(0,2))"  # noqa: E501 - one line of code for `python -c`
RANKS = 4


def main() -> None:
    """Run the gang in a temporary cloud."""
    with tempfile.TemporaryDirectory(prefix="kz-") as folder:
        os.environ["KAREZ_HOME"] = str(Path(folder) / "home")
        for part in ("PORT", "GATEWAY_PORT", "RAY_PORT"):
            os.environ[f"KAREZ_{part}"] = str(free_port())
        karez = [sys.executable, "-m", "karez.cli.main"]
        subprocess.run([*karez, "up"], check=True, capture_output=True)
        load = [subprocess.Popen([sys.executable, "-c", BURN]) for _ in range(LOAD)]
        try:
            with Client() as client:
                row = watch(client)
        finally:
            for process in load:
                process.kill()
            subprocess.run([*karez, "down"], check=True, capture_output=True)
    report("a busy machine", [row])


def watch(client: Client) -> dict[str, Any]:
    """Train for MINUTES, and count recoveries and restarts."""
    spec = JobSpec(
        name="quiet",
        kind=WorkloadKind.TRAIN,
        recipe="chaos-workload",
        settings={"steps": 10_000_000, "width": 504, "batch": 64, "pause_ms": 5.0},
        gang=make_gang(str(RANKS), [f"cpu={(os.cpu_count() or 1) / RANKS:.3f}"]),
    )
    job = client.submit(spec)
    ends = time.monotonic() + 60 * MINUTES
    loads: list[float] = []
    while time.monotonic() < ends:
        time.sleep(10)
        loads.append(os.getloadavg()[0])
    now = client.job(job.id)
    receipts = client.receipts(job.id)
    client.cancel(job.id)
    return {
        "minutes": MINUTES,
        "burners": LOAD,
        "load": round(mean(loads), 1),
        "steps": now.status.step,
        "still_running": now.state == State.RUNNING,
        "false_recoveries": len(receipts),
        "causes": "; ".join(receipt.cause for receipt in receipts)[:200],
        "restarts": now.status.retries,
    }


if __name__ == "__main__":
    main()
