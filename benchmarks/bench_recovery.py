"""kill -9 of one of two ranks: karez, torchrun elastic and Ray Train, same model, one run.

Measured alike for all three, from outside: the time from the kill until both ranks have completed
a step that neither had completed before it, and how many steps were done again. torchrun needs
TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 to recover with gloo at all (torch 2.13).
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

from report import report

HERE = Path(__file__).parent
STEPS, KILL_AT, RUNS = 400, 55, int(os.environ.get("RUNS", "3"))
Row = tuple[int, float, int]


def main() -> None:
    """Three ways, RUNS times each, taking turns."""
    ways: dict[str, Callable[[Path], Callable[[], None]]] = {
        "karez": start_karez,
        "torchrun": start_torchrun,
        "ray train": start_ray_train,
    }
    found: dict[str, list[tuple[float, int]]] = {name: [] for name in ways}
    for _ in range(RUNS):
        for name, start in ways.items():
            with tempfile.TemporaryDirectory(prefix="kz-") as folder:
                stop = start(Path(folder))
                try:
                    found[name].append(measure(Path(folder)))
                finally:
                    stop()
    base = median(seconds for seconds, _ in found["karez"])
    report(
        "a killed rank",
        [
            {
                "what": name,
                "recovery_s": round(median(s for s, _ in runs), 2),
                "worst_s": round(max(s for s, _ in runs), 2),
                "x_karez": round(median(s for s, _ in runs) / base, 1),
                "steps_done_again": max(again for _, again in runs),
                "runs": len(runs),
            }
            for name, runs in found.items()
        ],
    )


def measure(folder: Path) -> tuple[float, int]:
    """Kill rank 1 after step KILL_AT; seconds until both ranks are past, and steps redone."""
    wait(lambda: min(last(folder, rank)[0] for rank in (0, 1)) >= KILL_AT, within_s=240)
    victim = last(folder, 1)[2]
    at = time.time()
    os.kill(victim, signal.SIGKILL)
    before = [len(rows(folder, rank)) for rank in (0, 1)]
    highest = max(last(folder, rank)[0] for rank in (0, 1))

    def past() -> bool:
        return all(any(s > highest for s, t, _ in rows(folder, r) if t > at) for r in (0, 1))

    wait(past, within_s=240)
    healed = max(min(t for s, t, _ in rows(folder, r) if s > highest and t > at) for r in (0, 1))
    again = [sum(s <= highest for s, _, _ in rows(folder, r)[before[r] :]) for r in (0, 1)]
    return healed - at, max(again)


def rows(folder: Path, rank: int) -> list[Row]:
    """What a rank has written: (step, time, pid)."""
    path = folder / f"rank-{rank}"
    if not path.exists():
        return []
    found = []
    for line in path.read_text().splitlines():
        parts = line.split()
        if len(parts) == 3:
            found.append((int(parts[0]), float(parts[1]), int(parts[2])))
    return found


def last(folder: Path, rank: int) -> Row:
    """The newest row of a rank."""
    found = rows(folder, rank)
    return found[-1] if found else (0, 0.0, 0)


def wait(condition: Callable[[], bool], *, within_s: float) -> None:
    """Until a condition holds. Raises TimeoutError."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {within_s} s")
        time.sleep(0.01)


def start_torchrun(folder: Path) -> Callable[[], None]:
    """Torchrun elastic with two workers."""
    env = {**os.environ, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--max-restarts=3",
        "--monitor-interval=0.1", "--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{free_port()}",
        str(HERE / "recovery_peers.py"), str(folder), str(STEPS),
    ]  # fmt: skip
    return stopper(subprocess.Popen(command, env=env, **QUIET))


def start_ray_train(folder: Path) -> Callable[[], None]:
    """Ray Train with two workers on a local Ray."""
    env = {**os.environ, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, str(HERE / "recovery_peers.py"), "ray", str(folder), str(STEPS)]
    return stopper(subprocess.Popen(command, env=env, **QUIET))


def start_karez(folder: Path) -> Callable[[], None]:
    """A cloud of its own, and one job in it."""
    env = {**os.environ, "KAREZ_HOME": str(folder / "home")}
    for part in ("PORT", "GATEWAY_PORT", "RAY_PORT"):
        env[f"KAREZ_{part}"] = str(free_port())
    karez = [sys.executable, "-m", "karez.cli.main"]
    subprocess.run([*karez, "up"], env=env, check=True, capture_output=True)
    submit = [
        "jobs", "submit", "--name", "bench", "--kind", "train", "--workers", "2",
        "--set", f"folder={folder}", "--set", f"steps={STEPS}", "--set", f"here={HERE}",
        "--", "python", str(HERE / "recovery_karez.py"),
    ]  # fmt: skip
    subprocess.run([*karez, *submit], env=env, check=True, capture_output=True)
    return lambda: done(subprocess.run([*karez, "down"], env=env, check=True, capture_output=True))


def stopper(process: "subprocess.Popen[bytes]") -> Callable[[], None]:
    """Ends a process and everything it started."""

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
    """Nothing more."""


def free_port() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


QUIET: dict[str, int] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

if __name__ == "__main__":
    main()
