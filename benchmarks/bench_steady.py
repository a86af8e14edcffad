"""Cost of a snapshot at every step: CPU time of training in a session, A/B within one run.

A gang of four ranks alternates between six steps with snapshots and six steps without: snapshot,
checksum and comparison are left out in the B steps. CPU time of all ranks is summed over each
block; the medians of the blocks are compared. A snapshot costs the same however long the step is,
so the share is measured over steps of several lengths.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from bench_recovery import free_port
from report import report

HERE = Path(__file__).parent
RANKS, BLOCK = 4, 6
SIZES = (
    (504, 126, "0.5 M parameters, replicated", "ddp"),
    (504, 1008, "0.5 M parameters, replicated", "ddp"),
    (504, 5040, "0.5 M parameters, replicated", "ddp"),
    (1700, 425, "8.7 M parameters, sharded", "sharded"),
)
"""Layer width, rows of a batch, description, mode."""
BLOCKS = int(os.environ.get("BLOCKS", "16"))


def main() -> None:
    """Measure each size once."""
    rows = []
    for width, batch, name, mode in SIZES:
        with tempfile.TemporaryDirectory(prefix="kz-") as folder:
            found = measure(Path(folder), width, batch, mode)
            rows.append({"what": name, "batch": batch, **found})
            print(rows[-1], file=sys.stderr, flush=True)
    report("keeping every step", rows)


def measure(folder: Path, width: int, batch: int, mode: str) -> dict[str, object]:
    """Run a gang in a temporary cloud; the ranks write CPU and wall time of each block."""
    env = {**os.environ, "KAREZ_HOME": str(folder / "home")}
    for part in ("PORT", "GATEWAY_PORT", "RAY_PORT"):
        env[f"KAREZ_{part}"] = str(free_port())
    karez = [sys.executable, "-m", "karez.cli.main"]
    subprocess.run([*karez, "up"], env=env, check=True, capture_output=True)
    share = f"cpu={min(1.0, (os.cpu_count() or 1) / RANKS):.3f}"
    submit = [
        "jobs",
        "submit",
        "--name",
        "bench",
        "--kind",
        "train",
        "--workers",
        str(RANKS),
        "--each",
        share,
        "--set",
        f"folder={folder}",
        "--set",
        f"width={width}",
        "--set",
        f"mode={mode}",
        "--set",
        f"batch={batch}",
        "--set",
        f"blocks={BLOCKS}",
        "--set",
        f"block={BLOCK}",
        "--watch",
        "--",
        "python",
        str(HERE / "steady_karez.py"),
    ]
    try:
        subprocess.run([*karez, *submit], env=env, check=True, capture_output=True)
    finally:
        subprocess.run([*karez, "down"], env=env, check=True, capture_output=True)
    blocks = [json.loads((folder / f"rank-{rank}").read_text()) for rank in range(RANKS)]
    sums = {
        kept: [
            sum(rank[number]["cpu_s"] for rank in blocks) / BLOCK
            for number in range(2, len(blocks[0]))
            if blocks[0][number]["kept"] is kept
        ]
        for kept in (True, False)
    }
    with_s, without_s = median(sums[True]), median(sums[False])
    return {
        "mb_per_rank": round(blocks[0][0]["bytes"] / 1e6, 1),
        "step_ms": round(1e3 * without_s / RANKS, 2),
        "kept_ms": round(1e3 * (with_s - without_s) / RANKS, 2),
        "cost_%": round(100 * (with_s / without_s - 1), 2),
        "wall_ms_kept": round(1e3 * median(b["wall_s"] for b in blocks[0] if b["kept"]) / BLOCK, 1),
    }


if __name__ == "__main__":
    main()
