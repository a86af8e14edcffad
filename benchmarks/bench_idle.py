"""Cost of an idle cloud: CPU and memory of control and gateway, and start time of the CLI.

Claims: control + gateway < 2% of a core and < 250 MB; `karez --help` < 0.15 s; ready in < 8 s.
There is no peer to compare with: the figures are absolute, for this machine and its load.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import psutil
from report import report

WATCH_S = 20.0


def main() -> None:
    """Start a cloud, leave it idle, and read CPU times and memory."""
    with tempfile.TemporaryDirectory() as name:
        env = {**os.environ, "KAREZ_HOME": name}
        for part in ("PORT", "GATEWAY_PORT", "RAY_PORT"):
            with socket.create_server(("127.0.0.1", 0)) as probe:
                env[f"KAREZ_{part}"] = str(probe.getsockname()[1])
        karez = [sys.executable, "-m", "karez.cli.main"]
        before = time.monotonic()
        subprocess.run([*karez, "up"], env=env, check=True, capture_output=True)
        ready_s = time.monotonic() - before
        parts = json.loads((Path(name) / "cloud.json").read_text())["parts"]
        try:
            time.sleep(15)  # until the fork server has imported its modules
            rows = [idle_row(part, parts[part]) for part in ("control", "gateway")]
        finally:
            subprocess.run([*karez, "down"], env=env, check=True, capture_output=True)
    helps = []
    for _ in range(11):
        before = time.monotonic()
        subprocess.run([*karez, "--help"], check=True, capture_output=True)
        helps.append(time.monotonic() - before)
    total = {
        "what": "control + gateway",
        "cpu_percent": round(sum(float(str(row["cpu_percent"])) for row in rows), 2),
        "memory_mb": round(sum(float(str(row["memory_mb"])) for row in rows)),
        "seconds": "",
    }
    report(
        "idle",
        [
            *rows,
            total,
            {"what": "ready", "cpu_percent": "", "memory_mb": "", "seconds": round(ready_s, 2)},
            {
                "what": "--help",
                "cpu_percent": "",
                "memory_mb": "",
                "seconds": round(median(helps), 3),
            },
        ],
    )


def idle_row(name: str, pid: int) -> dict[str, object]:
    """Measure CPU over WATCH_S seconds and proportional memory of one process."""
    process = psutil.Process(pid)
    before = sum(process.cpu_times()[:2])
    time.sleep(WATCH_S)
    spent = sum(process.cpu_times()[:2]) - before
    memory = process.memory_full_info().pss / 1e6
    return {
        "what": name,
        "cpu_percent": round(100 * spent / WATCH_S, 2),
        "memory_mb": round(memory),
        "seconds": "",
    }


if __name__ == "__main__":
    main()
