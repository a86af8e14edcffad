"""kill -9 of one of four ranks: karez, torchrun elastic, Ray Train and torchft, one model, one run.

All four are measured alike, from outside: the time from the kill until all ranks have completed
a step that none had completed before it, and until those that were not killed have; and how many
steps were done again. karez's gang and torchft's are killed KILLS times in a row (50), the others,
which start again each time, RUNS times (3). torchrun needs TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 to
recover with gloo at all (torch 2.13). torchft goes on without the killed rank: the steps until it
is back are made from three quarters of the batch. It is installed in a separate folder, because
its requirements conflict with Ray's.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from subprocess import DEVNULL

from report import report

HERE = Path(__file__).parent
STEPS, KILL_AT, RUNS = 400, 55, int(os.environ.get("RUNS", "3"))
RANKS, KILLS, APART = 4, int(os.environ.get("KILLS", "50")), 12
"""Ranks of a gang; kills of one gang; steps between two kills."""
LASTING = ("karez", "torchft")
"""Frameworks whose gang is killed many times in one run."""
TORCHFT = "torchft-nightly==2026.10.26"
Row = tuple[int, float, int]


def main() -> None:
    """Measure the four frameworks, taking turns."""
    ways: dict[str, Callable[[Path], Callable[[], None]]] = {
        "karez": start_karez,
        "torchrun": start_torchrun,
        "ray train": start_ray_train,
        "torchft": start_torchft,
    }
    found: dict[str, list[tuple[float, float, int]]] = {name: [] for name in ways}
    for turn in range(RUNS):
        for name, start in ways.items():
            if name in LASTING and turn:
                continue
            with tempfile.TemporaryDirectory(prefix="kz-") as folder:
                stop = start(Path(folder))
                try:
                    for kill in range(KILLS if name in LASTING else 1):
                        after = KILL_AT + APART * kill
                        found[name].append(measure(Path(folder), after, kill % RANKS))
                finally:
                    stop()
    base = median(row[0] for row in found["karez"])
    report(
        "a killed rank",
        [
            {
                "what": name,
                "recovery_s": round(median(row[0] for row in runs), 3),
                "p99_s": round(sorted(row[0] for row in runs)[-1 - len(runs) // 100], 3),
                "x_karez": round(median(row[0] for row in runs) / base, 1),
                "others_go_on_s": round(median(row[1] for row in runs), 3),
                "steps_done_again": max(row[2] for row in runs),
                "keeps_batch": name != "torchft",
                "runs": len(runs),
            }
            for name, runs in found.items()
        ],
    )


def measure(folder: Path, after: int, rank: int) -> tuple[float, float, int]:
    """Kill a rank after a step.

    Returns:
        Seconds until all ranks are past the step, seconds until the surviving ranks are, and the
        most steps that a rank repeated.
    """
    ranks = range(RANKS)
    wait(lambda: min(last(folder, r)[0] for r in ranks) >= after, within_s=240)
    victim = last(folder, rank)[2]
    sizes = [(folder / f"rank-{r}").stat().st_size for r in ranks]
    at = time.time()
    os.kill(victim, signal.SIGKILL)
    highest = max(last(folder, r)[0] for r in ranks)

    def past() -> bool:
        return all(
            any(s > highest for s, t, _ in rows(folder, r, sizes[r]) if t > at) for r in ranks
        )

    wait(past, within_s=240)
    after_it = [[row for row in rows(folder, r, sizes[r]) if row[1] > at] for r in ranks]
    healed = [min(t for s, t, _ in found if s > highest) for found in after_it]
    again = [sum(s <= highest for s, _, _ in found) for found in after_it]
    others = max(when for r, when in enumerate(healed) if r != rank)
    return max(healed) - at, others - at, max(again)


def rows(folder: Path, rank: int, since: int = 0) -> list[Row]:
    """Read the rows (step, time, pid) that a rank has written, from an offset in its file.

    Only new rows are read, so that measuring takes little CPU time from the measured ranks.
    """
    path = folder / f"rank-{rank}"
    if not path.exists():
        return []
    with path.open() as file:
        file.seek(since)
        lines = file.read().split("\n")[:-1]
    found = []
    for line in lines:
        parts = line.split()
        if len(parts) == 3:
            found.append((int(parts[0]), float(parts[1]), int(parts[2])))
    return found


def last(folder: Path, rank: int) -> Row:
    """Read the newest row of a rank."""
    path = folder / f"rank-{rank}"
    size = path.stat().st_size if path.exists() else 0
    found = rows(folder, rank, max(0, size - 256))
    return found[-1] if found else (0, 0.0, 0)


def wait(condition: Callable[[], bool], *, within_s: float) -> None:
    """Wait until a condition holds. Raises TimeoutError."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {within_s} s")
        time.sleep(0.01)


def start_torchrun(folder: Path) -> Callable[[], None]:
    """Start torchrun elastic. Returns a function that stops it."""
    env = {**os.environ, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        f"--nproc-per-node={RANKS}",
        "--max-restarts=3",
        "--monitor-interval=0.1",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint=127.0.0.1:{free_port()}",
        str(HERE / "recovery_peers.py"),
        str(folder),
        str(STEPS),
    ]
    return stopper(subprocess.Popen(command, env=env, stdout=DEVNULL, stderr=DEVNULL))


def start_ray_train(folder: Path) -> Callable[[], None]:
    """Start Ray Train on a local Ray. Returns a function that stops it."""
    env = {**os.environ, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, str(HERE / "recovery_peers.py"), "ray", str(folder), str(STEPS)]
    return stopper(subprocess.Popen(command, env=env, stdout=DEVNULL, stderr=DEVNULL))


def start_karez(folder: Path) -> Callable[[], None]:
    """Start a temporary cloud with one job. Returns a function that stops the cloud."""
    env = {**os.environ, "KAREZ_HOME": str(folder / "home")}
    for part in ("PORT", "GATEWAY_PORT", "RAY_PORT"):
        env[f"KAREZ_{part}"] = str(free_port())
    karez = [sys.executable, "-m", "karez.cli.main"]
    subprocess.run([*karez, "up"], env=env, check=True, capture_output=True)
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
        f"cpu={min(1.0, (os.cpu_count() or 1) / RANKS):.3f}",
        "--set",
        f"folder={folder}",
        "--set",
        f"here={HERE}",
        "--set",
        f"steps={KILL_AT + APART * KILLS + 400}",
        "--",
        "python",
        str(HERE / "recovery_karez.py"),
    ]
    subprocess.run([*karez, *submit], env=env, check=True, capture_output=True)
    return lambda: done(subprocess.run([*karez, "down"], env=env, check=True, capture_output=True))


def start_torchft(folder: Path) -> Callable[[], None]:
    """Start torchft: a lighthouse and four replica groups of one rank. Returns a stop function."""
    apart = Path(sys.prefix) / "torchft"
    if not (apart / "torchft").exists():
        pip = [sys.executable, "-m", "pip", "install", "-q", "--target", str(apart)]
        for words in (["opentelemetry-exporter-otlp-proto-http"], ["--no-deps", TORCHFT]):
            subprocess.run([*pip, *words], check=True, stdout=DEVNULL, stderr=DEVNULL)
    port = str(free_port())
    env = {**os.environ, "PYTHONPATH": str(apart), "OMP_NUM_THREADS": "1"}
    script = [sys.executable, str(HERE / "recovery_torchft.py")]
    steps = str(KILL_AT + 4000 * KILLS)
    stops = [
        stopper(subprocess.Popen([*script, *words], env=env, stdout=DEVNULL, stderr=DEVNULL))
        for words in (
            ["lighthouse", port],
            *(["rank", str(folder), steps, str(rank), port] for rank in range(RANKS)),
        )
    ]
    return lambda: done([stop() for stop in stops])


def stopper(process: "subprocess.Popen[bytes]") -> Callable[[], None]:
    """Make a function that ends a process and all its descendants."""

    def stop() -> None:
        import psutil

        family = [
            *psutil.Process(process.pid).children(recursive=True),
            psutil.Process(process.pid),
        ]
        for member in family:
            try:
                member.kill()
            except psutil.NoSuchProcess:
                continue
        process.wait()

    return stop


def done(_: object) -> None:
    """Discard a value, so that a lambda returns None."""


def free_port() -> int:
    """Find a free TCP port on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
