"""Memory of the gateway under mixed load, callers that hang up included: MINUTES (default 60).

A pretended model server behind one gateway process; RATE (60) requests a second, at random but
always the same: whole answers, whole streams, streams whose caller hangs up at a random moment,
bodies that are no JSON, unknown keys and models, heads that are no HTTP, uploads that stop in the
middle. Its resident memory is read every ten seconds.

Claim: the median of the last quarter is at most 1.05 of that of the second one. In the first one
what is kept on purpose (keys, prefixes, pieces of streams) is still filling.
"""

import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median

import aiohttp
import psutil
from bench_gateway import await_port, free_port
from report import report

HERE = Path(__file__).parent
MINUTES = float(os.environ.get("MINUTES", "60"))
RATE = float(os.environ.get("RATE", "60"))
EVERY_S = 10.0
KINDS = (
    ("whole answer", 40),
    ("whole stream", 10),
    ("stream hung up", 20),
    ("no JSON", 6),
    ("unknown key", 8),
    ("unknown model", 8),
    ("no HTTP", 4),
    ("upload that stops", 4),
)
MIB = 2**20


def main() -> None:
    """Load the gateway, and watch its memory."""
    with tempfile.TemporaryDirectory() as name:
        upstream_port, port = free_port(), free_port()
        command = [sys.executable, str(HERE / "gateway_upstream.py"), str(upstream_port)]
        with subprocess.Popen(command) as upstream:
            await_port(upstream_port)
            arguments = [str(port), f"http://127.0.0.1:{upstream_port}", name]
            with subprocess.Popen(
                [sys.executable, str(HERE / "gateway_karez.py"), *arguments],
                stdout=subprocess.PIPE,
                text=True,
            ) as gateway:
                assert gateway.stdout is not None
                key = gateway.stdout.readline().strip()
                load = Load(port, key)
                sizes = asyncio.run(load.run(psutil.Process(gateway.pid)))
                gateway.terminate()
            upstream.terminate()
    quarter = len(sizes) // 4
    parts = [sizes[at * quarter : (at + 1) * quarter] for at in range(4)]
    rows = [
        {
            "quarter": number,
            "median_mib": round(median(part) / MIB, 2),
            "least_mib": round(min(part) / MIB, 2),
            "most_mib": round(max(part) / MIB, 2),
        }
        for number, part in enumerate(parts, 1)
    ]
    report("memory of the gateway", rows)
    ratio = median(parts[3]) / median(parts[1])
    summary = {"minutes": MINUTES, "last to second quarter": round(ratio, 4), **load.done}
    report("requests of the gateway", [summary])
    assert ratio <= 1.05, "its memory grows"


class Load:
    """What callers send."""

    def __init__(self, port: int, key: str) -> None:
        """Call a gateway with a key of it."""
        self._port, self._key = port, key
        self._chance = random.Random(0)
        self.done: Counter[str] = Counter()

    async def run(self, process: psutil.Process) -> list[int]:
        """Send for MINUTES; returns the resident memory every ten seconds."""
        began, sizes, asking = time.monotonic(), [], set[asyncio.Task[None]]()
        names, weights = zip(*KINDS, strict=True)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(
            f"http://127.0.0.1:{self._port}", connector=connector
        ) as session:
            for number in range(round(MINUTES * 60 * RATE)):
                await asyncio.sleep(max(0.0, began + number / RATE - time.monotonic()))
                kind = self._chance.choices(names, weights)[0]
                task = asyncio.create_task(self._one(session, kind))
                asking.add(task)
                task.add_done_callback(asking.discard)
                if number % round(EVERY_S * RATE) == 0:
                    sizes.append(process.memory_info().rss)
            await asyncio.gather(*asking)
        return sizes

    async def _one(self, session: aiohttp.ClientSession, kind: str) -> None:
        with contextlib.suppress(aiohttp.ClientError, ConnectionError):
            if kind in ("no HTTP", "upload that stops"):
                await self._raw(kind)
            else:
                await self._ask(session, kind)
            self.done[kind] += 1

    async def _ask(self, session: aiohttp.ClientSession, kind: str) -> None:
        text = "".join(self._chance.choices("abcdefgh ", k=self._chance.randrange(20, 4000)))
        body: dict[str, object] = {
            "model": "none" if kind == "unknown model" else "gpt",
            "messages": [{"role": "user", "content": text}],
            "stream": "stream" in kind,
        }
        data = b"{" if kind == "no JSON" else json.dumps(body).encode()
        key = f"kz_{self._chance.randbytes(6).hex()}_x" if kind == "unknown key" else self._key
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        async with session.post("/v1/chat/completions", data=data, headers=headers) as answer:
            if kind == "stream hung up":
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._chance.random() * 1.3):
                        await answer.read()
                answer.close()
            else:
                await answer.read()

    async def _raw(self, kind: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        if kind == "no HTTP":
            writer.write(self._chance.randbytes(200) + b"\r\n\r\n")
            await reader.read()
        else:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nauthorization: Bearer {self._key}\r\n"
            writer.write(f"{head}host: g\r\ncontent-length: 100000\r\n\r\n{{".encode())
            await writer.drain()
            await asyncio.sleep(self._chance.random())
        writer.close()
        await writer.wait_closed()


if __name__ == "__main__":
    main()
