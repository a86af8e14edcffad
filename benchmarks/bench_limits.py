"""Limits of calls over several processes of the gateway: many keys that ask for more than theirs.

A cloud whose gateway has two processes, and a service of a tiny model on a real engine. KEYS
(default 50) keys of LIMIT (60) requests a minute ask at three times their limit for a minute
(SECONDS_EACH), and as many keys of the same limit at half of it, each request on a connection of
its own, which either process may take. Beside it: one process. `most` is the highest number of
answers that a key had in any minute, `refused` those of requests that were refused, and `lost` are
requests that got neither an answer nor a refusal.

Claims: nobody has over 1.02 of its limit in any minute, and nobody below it is refused.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import aiohttp
from bench_recovery import free_port
from report import report

sys.path.insert(0, str(Path(__file__).parent.parent))
from karez.client import calls
from karez.client.sdk import Client
from karez.core.artifacts import ArtifactKind
from karez.core.services import ServiceSpec
from tests.tiny_model import write_decided_model

KEYS = int(os.environ.get("KEYS", "50"))
LIMIT = int(os.environ.get("LIMIT", "60"))
SECONDS = float(os.environ.get("SECONDS_EACH", "60"))
MINUTE_S = 60.0
KAREZ = [sys.executable, "-m", "karez.cli.main"]


@dataclass
class Caller:
    """One key, and what it was told."""

    key: str
    times: float
    """How many times its limit it asks for."""
    taken: list[float] = field(default_factory=list)
    """When the answered requests were sent."""
    statuses: Counter[int] = field(default_factory=Counter)
    waits_s: list[float] = field(default_factory=list)

    @property
    def most(self) -> int:
        """The most answers in any minute."""
        sent = sorted(self.taken)
        return max(
            (sum(at <= one < at + MINUTE_S for one in sent) for at in sent),
            default=0,
        )


def main() -> None:
    """Measure with two processes, and with one."""
    with tempfile.TemporaryDirectory(prefix="kz-") as name:
        model = write_decided_model(Path(name) / "m.gguf", 256)
        rows = [row for count in (2, 1) for row in on_cloud(Path(name) / str(count), model, count)]
    report("limits of calls", rows)
    assert all(float(str(row["most / limit"])) <= 1.02 for row in rows), "more than a limit"
    assert not any(row["refused"] for row in rows if row["asks"] == "0.5x"), "refused below it"


def on_cloud(folder: Path, model: Path, processes: int) -> list[dict[str, object]]:
    """The rows of a gateway of so many processes."""
    env = {**os.environ, "KAREZ_HOME": str(folder), "KAREZ_CPUS": "1"}
    env["KAREZ_GATEWAY_PROCESSES"] = str(processes)
    for part in ("PORT", "GATEWAY_PORT", "RAY_PORT"):
        env[f"KAREZ_{part}"] = str(free_port())
    subprocess.run([*KAREZ, "up"], env=env, check=True, capture_output=True)
    try:
        address = json.loads((folder / "cloud.json").read_text())
        with Client(address["url"], (folder / "admin.key").read_text()) as client:
            client.upload(model, name="m", kind=ArtifactKind.MODEL, format="gguf")
            spec = ServiceSpec(name="m", model="m", context_tokens=256, parallel=16)
            client.wait_ready(client.deploy(spec).id)
            callers = [Caller(made(env, n), 3 if n < KEYS else 0.5) for n in range(2 * KEYS)]
            asyncio.run(measure(address["gateway"], callers))
            client.call(calls.stop_service("m"))
    finally:
        subprocess.run([*KAREZ, "down"], env=env, check=True, capture_output=True)
    return [row(processes, times, callers) for times in (3, 0.5)]


def made(env: dict[str, str], number: int) -> str:
    """A new key."""
    words = ["keys", "create", f"k{number}", "--requests-per-minute", str(LIMIT)]
    return subprocess.run(
        [*KAREZ, *words], env=env, check=True, capture_output=True, text=True
    ).stdout.strip()


def row(processes: int, times: float, callers: list[Caller]) -> dict[str, object]:
    """One line of the table."""
    own = [one for one in callers if one.times == times]
    waits = [wait for one in own for wait in one.waits_s]
    return {
        "processes": processes,
        "keys": len(own),
        "asks": f"{times}x",
        "requests": sum(sum(one.statuses.values()) for one in own),
        "answered": sum(len(one.taken) for one in own),
        "most": max(one.most for one in own),
        "most / limit": round(max(one.most for one in own) / LIMIT, 3),
        "fewest": min(len(one.taken) for one in own),
        "refused": sum(one.statuses[429] for one in own),
        "lost": sum(n for one in own for status, n in one.statuses.items() if status not in OK),
        "answer_ms_p50": round(1000 * median(waits), 1),
    }


OK = (200, 429)


async def measure(url: str, callers: list[Caller]) -> None:
    """All ask, evenly over time and apart from each other."""
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        for one in callers:
            await until_known(session, url, one)
        await asyncio.gather(
            *(run(session, url, one, number / len(callers)) for number, one in enumerate(callers))
        )


async def until_known(session: aiohttp.ClientSession, url: str, caller: Caller) -> None:
    """Wait until the processes of the gateway know a key: several ask after it, in turn."""
    headers, times = {"authorization": f"Bearer {caller.key}"}, 0
    while times < 4:
        async with session.get(f"{url}/models", headers=headers) as answer:
            times = times + 1 if answer.status == 200 else 0
        await asyncio.sleep(0 if times else 0.2)


async def run(session: aiohttp.ClientSession, url: str, caller: Caller, phase: float) -> None:
    """Ask at the pace of one caller."""
    every_s, began = MINUTE_S / (LIMIT * caller.times), time.monotonic()
    asking: list[asyncio.Task[None]] = []
    for number in range(round(SECONDS / every_s)):
        await asyncio.sleep(max(0.0, began + (number + phase) * every_s - time.monotonic()))
        asking.append(asyncio.create_task(ask(session, url, caller)))
    await asyncio.gather(*asking)


async def ask(session: aiohttp.ClientSession, url: str, caller: Caller) -> None:
    """Ask once."""
    body = {"model": "m", "prompt": "A", "max_tokens": 1}
    headers, at = {"authorization": f"Bearer {caller.key}"}, time.monotonic()
    try:
        async with session.post(f"{url}/completions", json=body, headers=headers) as answer:
            await answer.read()
            status = answer.status
    except aiohttp.ClientError:
        status = 0
    caller.statuses[status] += 1
    if status == 200:
        caller.taken.append(at)
        caller.waits_s.append(time.monotonic() - at)


if __name__ == "__main__":
    main()
