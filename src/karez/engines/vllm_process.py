"""vLLM's server below a process that reports its URL to the node agent."""

import asyncio
import importlib.util
import json
import math
import os
import sys
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from karez.core import environment
from karez.core.devices import DeviceKind
from karez.core.engines import Task
from karez.core.model_facts import ModelFacts, facts_of_config
from karez.engines.engine_process import EngineProcess, own_memory

SERVER = "vllm.entrypoints.openai.api_server"
LOOK_S, ANSWER_S = 0.5, 2.0
GIB = 1 << 30
DEFAULT_RANK = 16
"""vLLM's own limit of an adapter's rank."""


def main() -> int:
    """Serve one model until killed, or vLLM ends."""
    process = EngineProcess.here()
    if importlib.util.find_spec("vllm") is None:
        sys.stderr.write(
            "vLLM is missing: deploy the service with --environment and one that has it\n"
        )
        return 3
    return asyncio.run(_serve(process))


async def _serve(process: EngineProcess) -> int:
    port = process.free_port()
    server = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", SERVER, *arguments(process, port)),
        env={**process.env, **variables(process)},
    )
    while not await asyncio.to_thread(_is_up, process.address, port):
        if server.returncode is not None:
            return server.returncode or 1
        await asyncio.sleep(LOOK_S)
    announcing = asyncio.get_running_loop().run_in_executor(
        None, process.announce, port, own_memory
    )
    code = await server.wait()
    announcing.cancel()
    os._exit(code if code > 0 else 1)  # the thread that announces never ends


def arguments(process: EngineProcess, port: int) -> list[str]:
    """The options of vLLM's server."""
    launch, config = process.launch, _config(process.model)
    facts = _facts(config)
    most = launch.tokens if facts is None else facts.context or launch.tokens
    told = [
        *("--model", str(process.model), "--served-model-name", launch.alias),
        *("--host", process.address, "--port", str(port)),
        *("--max-model-len", str(min(launch.tokens, most))),
        *("--max-num-seqs", str(launch.parallel)),
    ]
    if launch.task != Task.GENERATE:
        return [*told, "--runner", "pooling"]
    if _is_cpu(process):
        told.append("--enforce-eager")  # compiling takes a minute, and brings 4%
    if process.adapters:
        folders = process.adapters.values()
        ranks = [_config(folder, "adapter_config.json").get("r") for folder in folders]
        most_rank = max([DEFAULT_RANK, *(rank for rank in ranks if isinstance(rank, int))])
        told += ["--enable-lora", "--max-lora-rank", str(most_rank), "--lora-modules"]
        told += [f"{name}={folder}" for name, folder in process.adapters.items()]
    return told


def variables(process: EngineProcess) -> Mapping[str, str]:
    """What vLLM reads beside its options; the key is not on its command line, for all to see."""
    found = {
        "VLLM_API_KEY": process.key,
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    if _is_cpu(process):
        facts = _facts(_config(process.model))
        values = 0 if facts is None else facts.cached_values
        cache = 2 * values * process.launch.tokens * process.launch.parallel
        cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
        found["VLLM_CPU_KVCACHE_SPACE"] = str(max(1, math.ceil(cache / GIB)))
        found["VLLM_CPU_OMP_THREADS_BIND"] = cores
    openmp = Path(sys.prefix, "lib", "libiomp5.so")
    return {**found, "LD_PRELOAD": str(openmp)} if openmp.exists() else found


def _facts(config: Mapping[str, object]) -> ModelFacts | None:
    """The shape of a model; None if it does not tell it."""
    try:
        return facts_of_config(config, 0)
    except ValueError:
        return None


def _is_cpu(process: EngineProcess) -> bool:
    return process.env.get(environment.DEVICE, "") in ("", DeviceKind.CPU)


def _config(folder: Path, name: str = "config.json") -> Mapping[str, object]:
    told = json.loads((folder / name).read_text())
    return told if isinstance(told, dict) else {}


def _is_up(address: str, port: int) -> bool:
    connection = HTTPConnection(address, port, timeout=ANSWER_S)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
