"""Routing by what replicas have computed already, beside round robin and the least busy one.

Claim: on Mooncake's trace of conversations at least 1.5 times the cached tokens of round robin. The
replicas are real llama.cpp servers of a tiny model, which tell how many tokens of a prompt they had
cached; the trace is scaled down from 512 tokens a block to 64, and sent as fast as it is answered.
Source of the trace: kvcache-ai/Mooncake, FAST25 release (Apache-2.0), by KAREZ_TRACES.
"""

import asyncio
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import uvloop
from report import report, traces
from typing_extensions import override

from karez.core.identity import Role
from karez.core.routing import GatewayKey, Route, Table
from karez.server.clock import SteadyClock
from karez.serving import prefix_affinity
from karez.serving.call_book import CallBook
from karez.serving.gateway import Gateway
from karez.serving.prefix_affinity import PrefixAffinity
from karez.serving.service_queue import ServiceQueue
from karez.serving.usage_spool import UsageSpool

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.tiny_model import write_tiny_model

BLOCK, SLOTS, CONTEXT = 64, 4, 20_480
REQUESTS = int(os.environ.get("REQUESTS", "1200"))
CALLERS = 8
CLAIM = 1.5
SERVER = """
import signal, sys, xllamacpp
model, port, context, slots = sys.argv[1], *map(int, sys.argv[2:])
params = xllamacpp.CommonParams()
params.model.path, params.port, params.hostnames = model, port, ["127.0.0.1"]
params.n_parallel, params.n_ctx = slots, context * slots
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(params)
print("ready", flush=True)
signal.pause()
"""


@dataclass(slots=True)
class RoundRobin(PrefixAffinity):
    """One replica after the other."""

    _next: "itertools.count[int]" = field(default_factory=itertools.count)

    @override
    def choose(self, blocks: Sequence[int], loads: Mapping[str, int]) -> str:
        return sorted(loads)[next(self._next) % len(loads)]


@dataclass(slots=True)
class LeastBusy(PrefixAffinity):
    """The one with the fewest requests."""

    @override
    def choose(self, blocks: Sequence[int], loads: Mapping[str, int]) -> str:
        return min(loads, key=lambda url: (loads[url], url))


@dataclass
class Seen:
    """What callers saw."""

    prompt: int = 0
    cached: int = 0
    first_s: list[float] = field(default_factory=list)


def prompts() -> list[str]:
    """The prompts of the trace, scaled down: each block of it is BLOCK letters of its own."""
    lines = (traces("mooncake") / "conversation_trace.jsonl").read_text().splitlines()[:REQUESTS]
    blocks = (json.loads(line)["hash_ids"] for line in lines)
    return ["".join(f"{number:x}".ljust(BLOCK, ".") for number in ids) for ids in blocks]


async def main() -> None:
    """Send the trace through each policy, with 2 and 4 replicas."""
    prefix_affinity.BLOCK_BYTES = BLOCK // 2
    texts = prompts()
    rows = []
    for replicas in (2, 4):
        for policy in (RoundRobin, LeastBusy, PrefixAffinity):
            began = time.perf_counter()
            seen = await replay(texts, replicas, policy())
            waits = sorted(seen.first_s)
            rows.append(
                {
                    "replicas": replicas,
                    "policy": policy.__name__,
                    "cached_share": round(seen.cached / seen.prompt, 3),
                    "first_p50_ms": round(1000 * waits[len(waits) // 2], 1),
                    "first_p99_ms": round(1000 * waits[int(len(waits) * 0.99)], 1),
                    "seconds": round(time.perf_counter() - began, 1),
                }
            )
    report("prefix", rows)
    for replicas in (2, 4):
        of = {r["policy"]: float(str(r["cached_share"])) for r in rows if r["replicas"] == replicas}
        ratio = of["PrefixAffinity"] / of["RoundRobin"]
        print(f"{replicas} replicas: {ratio:.2f} times the cached tokens of round robin")
        if ratio < CLAIM:
            raise SystemExit(f"fewer than {CLAIM} times")


async def replay(texts: list[str], replicas: int, policy: PrefixAffinity) -> Seen:
    """Send all prompts through a gateway with a policy, to replicas that have seen nothing."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tiny_model(folder / "tiny.gguf", CONTEXT)
        processes, urls = await _start(folder, replicas)
        try:
            gateway = Gateway(
                book=CallBook(spool=UsageSpool(folder / "calls")),
                clock=SteadyClock(),
                find_key=lambda _, table: table.keys[0],
                engine_key="none",
            )
            route = Route(service="m", project="p", urls=tuple(urls), parallel=SLOTS)
            key = GatewayKey(id="k", project="p", role=Role.MEMBER, digest="")
            gateway.table = Table(keys=(key,), routes=(route,))
            gateway.admission.queues["p", "m"] = ServiceQueue(
                parallel=SLOTS, replicas=len(urls), affinity=policy
            )
            server = await gateway.listen("127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            seen, rest = Seen(), iter(texts)
            url = f"http://127.0.0.1:{port}/v1/completions"
            async with aiohttp.ClientSession() as session:
                await asyncio.gather(*(_call(session, url, rest, seen) for _ in range(CALLERS)))
            server.close()
            await gateway.close(within_s=1)
            return seen
        finally:
            for process in processes:
                process.kill()
                await process.wait()


async def _start(folder: Path, replicas: int) -> tuple[list[asyncio.subprocess.Process], list[str]]:
    processes, urls = [], []
    for _ in range(replicas):
        probe = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
        port = probe.sockets[0].getsockname()[1]
        probe.close()
        await probe.wait_closed()
        arguments = [str(folder / "tiny.gguf"), str(port), str(CONTEXT), str(SLOTS)]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SERVER, *arguments, stdout=-1, stderr=asyncio.subprocess.DEVNULL
        )
        assert process.stdout is not None
        await process.stdout.readline()
        processes.append(process)
        urls.append(f"http://127.0.0.1:{port}")
    return processes, urls


async def _call(session: aiohttp.ClientSession, url: str, texts: Iterator[str], seen: Seen) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": 4}
    for text in texts:
        began = time.perf_counter()
        body = {"model": "m", "prompt": text, "ignore_eos": True, **options}
        headers = {"authorization": "Bearer k"}
        async with session.post(url, json=body, headers=headers) as answer:
            if answer.status != 200:
                raise SystemExit(await answer.text())
            first = True
            async for line in answer.content:
                if first and line.startswith(b"data: {"):
                    first = False
                    seen.first_s.append(time.perf_counter() - began)
                if b'"usage":{' in line:
                    usage = json.loads(line[6:])["usage"]
                    seen.prompt += usage["prompt_tokens"]
                    seen.cached += usage["prompt_tokens_details"]["cached_tokens"]


if __name__ == "__main__":
    uvloop.run(main())
