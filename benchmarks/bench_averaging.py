"""A training step in a karez session beside DDP under torchrun, and torchft: CPU and wall time.

The same model, rows and optimizer, one thread a rank, gloo, in interleaved runs of fresh processes.
A session keeps every step and survives faults; DDP does neither. Figures are medians over the steps
of a run; the ratio is the median over pairs of neighbouring runs, with the 95% interval that a
bootstrap over these pairs gives. CPU time is that of the ranks, all their threads.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median
from subprocess import DEVNULL

from bench_recovery import TORCHFT, free_port, stopper
from report import report

HERE = Path(__file__).parent
RUNS = int(os.environ.get("RUNS", "7"))


@dataclass(frozen=True)
class Size:
    """One row of the table."""

    name: str
    width: int
    layers: int
    batch: int
    """Rows of a rank."""
    steps: int
    ranks: int = 2
    parts: int = 1
    """Micro-batches of a step."""
    runs: int = RUNS

    @property
    def words(self) -> list[str]:
        """The size as words of a command line."""
        return [str(n) for n in (self.width, self.layers, self.batch, self.steps, self.parts)]


SIZES = (
    Size("1 M parameters", 504, 4, 96, 300),
    Size("9 M, 36 MB", 1500, 4, 96, 60),
    Size("9 M, 36 MB, 8 x the rows", 1500, 4, 768, 24),
    Size("9 M, 4 micro-batches", 1500, 4, 384, 30, parts=4),
    Size("9 M, 4 ranks", 1500, 4, 96, 40, ranks=4, runs=min(RUNS, 3)),
    Size("9 M, 8 ranks", 1500, 4, 96, 30, ranks=8, runs=min(RUNS, 3)),
    Size("125 M, 500 MB", 5580, 4, 64, 8, runs=min(RUNS, 2)),
)
CHOSEN = [SIZES[int(n)] for n in os.environ.get("SIZES", "0 1 2 3 4 5 6").split()]
Ways = dict[str, Callable[[Size, Path], None]]


def main() -> None:
    """Measure every size in turn."""
    table = []
    with cloud() as env:
        ways: Ways = {"ddp": run_ddp, "karez": lambda size, folder: run_karez(size, folder, env)}
        if os.environ.get("TORCHFT", "1") == "1":
            ways["torchft"] = run_torchft
        for size in CHOSEN:
            table.append({"what": size.name, "ranks": size.ranks, **compare(size, ways)})
            print(table[-1], file=sys.stderr, flush=True)
    report("a step beside DDP", table)


def compare(size: Size, ways: Ways) -> dict[str, object]:
    """Run all ways in turn, several times, and put their steps side by side."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    losses: dict[str, float] = {}
    for turn in range(size.runs):
        names = list(ways) if turn % 2 == 0 else list(reversed(ways))
        for name in names:
            if name == "torchft" and (size.parts > 1 or size.width > 4000 or turn > 2):
                continue
            with tempfile.TemporaryDirectory(prefix="kz-") as folder:
                ways[name](size, Path(folder))
                cpu, wall, losses[name] = read(Path(folder), size.ranks)
                found[name].append((cpu, wall))
    row: dict[str, object] = {
        f"{name}_ms": round(1e3 * median(wall for _, wall in runs), 1)
        for name, runs in found.items()
        if runs
    }
    for index, what in enumerate(("cpu", "wall")):
        pairs = zip(found["karez"], found["ddp"], strict=True)
        ratios = [ours[index] / theirs[index] for ours, theirs in pairs]
        low, high = interval(ratios)
        row[f"{what}_ratio"] = f"{median(ratios):.3f} [{low:.3f}, {high:.3f}]"
    row["same_loss"] = abs(losses["karez"] - losses["ddp"]) <= 1e-4 * abs(losses["ddp"]) + 1e-9
    return row


def read(folder: Path, ranks: int) -> tuple[float, float, float]:
    """Median CPU seconds of a step, summed over the ranks; its wall seconds; rank 0's last loss."""
    files = [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(ranks)]
    cpu = [sum(step) for step in zip(*([r[0] for r in f["rows"]] for f in files), strict=True)]
    # CPU time is counted in ticks of the scheduler: over all steps, not step by step
    return sum(cpu) / len(cpu), median(wall for _, wall in files[0]["rows"]), files[0]["loss"]


def interval(ratios: list[float]) -> tuple[float, float]:
    """95% of the medians of samples drawn again from these."""
    chance = Random(0)
    medians = sorted(median(chance.choices(ratios, k=len(ratios))) for _ in range(2000))
    return medians[50], medians[-51]


@contextmanager
def cloud() -> Iterator[dict[str, str]]:
    """A cloud for all jobs of the benchmark."""
    with tempfile.TemporaryDirectory(prefix="kz-") as folder:
        env = {**os.environ, "KAREZ_HOME": f"{folder}/home"}
        for part in ("PORT", "GATEWAY_PORT", "RAY_PORT"):
            env[f"KAREZ_{part}"] = str(free_port())
        karez = [sys.executable, "-m", "karez.cli.main"]
        subprocess.run([*karez, "up"], env=env, check=True, capture_output=True)
        try:
            yield env
        finally:
            subprocess.run([*karez, "down"], env=env, check=True, capture_output=True)


def run_karez(size: Size, folder: Path, env: dict[str, str]) -> None:
    """Run the size as a job and wait for its end."""
    share = f"cpu={min(1.0, (os.cpu_count() or 1) / size.ranks):.3f}"
    settings = {
        "folder": folder,
        "width": size.width,
        "layers": size.layers,
        "batch": size.batch,
        "steps": size.steps,
        "parts": size.parts,
    }
    words = ["jobs", "submit", "--name", folder.name.replace("_", "-"), "--kind", "train"]
    words += ["--workers", str(size.ranks), "--each", share, "--watch"]
    for name, value in settings.items():
        words += ["--set", f"{name}={value}"]
    script = ["--", "python", str(HERE / "averaging_step.py")]
    subprocess.run(
        [sys.executable, "-m", "karez.cli.main", *words, *script],
        env=env,
        check=True,
        capture_output=True,
    )


def run_ddp(size: Size, folder: Path) -> None:
    """Run the size under torchrun."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={size.ranks}", str(HERE / "averaging_step.py"), "ddp"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, str(folder), *size.words], env=env, check=True, capture_output=True)


def run_torchft(size: Size, folder: Path) -> None:
    """Run the size as replica groups of one rank under a lighthouse."""
    apart = Path(sys.prefix) / "torchft"
    if not (apart / "torchft").exists():
        pip = [sys.executable, "-m", "pip", "install", "-q", "--target", str(apart)]
        for words in (["opentelemetry-exporter-otlp-proto-http"], ["--no-deps", TORCHFT]):
            subprocess.run([*pip, *words], check=True, stdout=DEVNULL, stderr=DEVNULL)
    port, env = str(free_port()), {**os.environ, "PYTHONPATH": str(apart), "OMP_NUM_THREADS": "1"}
    lighthouse = [sys.executable, str(HERE / "recovery_torchft.py"), "lighthouse", port]
    stop = stopper(subprocess.Popen(lighthouse, env=env, stdout=DEVNULL, stderr=DEVNULL))
    script = [sys.executable, str(HERE / "averaging_step.py"), "torchft", str(folder), *size.words]
    ranks = [
        subprocess.Popen([*script, str(rank), port], env=env, stdout=DEVNULL, stderr=DEVNULL)
        for rank in range(size.ranks)
    ]
    for rank in ranks:
        rank.wait()
    stop()


if __name__ == "__main__":
    main()
