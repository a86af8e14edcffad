"""A service without replicas wakes for a request; a training that holds the pool gives up a device.

A cloud of two CPUs; a service of a small model that ends its replica after a second without a
request. Each request is timed from its sending to its answer: with a free device, and with an
elastic training of two ranks on both (steps of 50 ms). Beside it: the same engine, started alone in
a fresh process and asked the same. `reclaim_s` is from the end of the last step that both ranks
took to the moment at which the replica has the device. ROUNDS (default 12) requests of each kind.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

from bench_recovery import free_port
from report import report

sys.path.insert(0, str(Path(__file__).parent.parent))
from karez.client import calls, pool_calls
from karez.client.sdk import Client
from karez.core.artifacts import ArtifactKind
from karez.core.gangs import GangSpec
from karez.core.jobs import JobSpec
from karez.core.services import Service, ServiceSpec
from karez.core.workloads import State, Status, WorkloadKind
from tests.tiny_model import write_tiny_model

ROUNDS = int(os.environ.get("ROUNDS", "12"))
CONTEXT = 1024
ENGINE = """
import signal, sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.port, params.hostnames = sys.argv[1], int(sys.argv[2]), ["127.0.0.1"]
params.n_parallel, params.n_ctx = 4, int(sys.argv[3]) * 4
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(params)
print("ready", flush=True)
signal.pause()
"""


def main() -> None:
    """Measure all three."""
    with tempfile.TemporaryDirectory(prefix="kz-") as name:
        folder = Path(name)
        model = write_tiny_model(folder / "tiny.gguf", CONTEXT)
        alone = [engine_alone(model) for _ in range(ROUNDS)]
        env = {**os.environ, "KAREZ_HOME": str(folder / "home"), "KAREZ_CPUS": "2"}
        for part in ("PORT", "GATEWAY_PORT", "RAY_PORT"):
            env[f"KAREZ_{part}"] = str(free_port())
        karez = [sys.executable, "-m", "karez.cli.main"]
        subprocess.run([*karez, "up"], env=env, check=True, capture_output=True)
        try:
            free, held, reclaims = on_cloud(folder, model)
        finally:
            subprocess.run([*karez, "down"], env=env, check=True, capture_output=True)
    rows = [row("engine alone", alone), row("woken, a device is free", free)]
    rows.append(row("woken, training holds all", held, reclaims))
    report("waking a service", rows)


def row(
    what: str, answers_s: list[float], reclaims_s: list[float] | None = None
) -> dict[str, object]:
    """One line of the table."""
    measured = {"answer_s": answers_s, "reclaim_s": reclaims_s or []}
    found: dict[str, object] = {"what": what, "requests": len(answers_s)}
    for name, seconds in measured.items():
        found[f"{name}_p50"] = round(median(seconds), 2) if seconds else ""
        found[f"{name}_max"] = round(max(seconds), 2) if seconds else ""
    return found


def engine_alone(model: Path) -> float:
    """Seconds from the start of an engine's process to its answer."""
    port, began = free_port(), time.monotonic()
    arguments = [sys.executable, "-c", ENGINE, str(model), str(port), str(CONTEXT)]
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            ask(f"http://127.0.0.1:{port}/v1", "")
            return time.monotonic() - began
        finally:
            process.kill()


def ask(url: str, key: str) -> None:
    """Ask for one token; raises if there is no answer."""
    body = {"model": "rare", "prompt": "abc", "max_tokens": 1}
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    data = json.dumps(body).encode()
    request = urllib.request.Request(f"{url}/completions", data=data, headers=headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        assert json.loads(answer.read())["choices"]


def on_cloud(folder: Path, model: Path) -> tuple[list[float], list[float], list[float]]:
    """Wake the service with free devices, and beside a training; and how long it gave up one."""
    address = json.loads((folder / "home" / "cloud.json").read_text())
    key = (folder / "home" / "admin.key").read_text()
    with Client(address["url"], key) as client:
        client.upload(model, name="tiny", kind=ArtifactKind.MODEL, format="gguf")
        spec = ServiceSpec(
            name="rare", model="tiny", min_replicas=0, idle_s=1.0, context_tokens=CONTEXT
        )
        service = client.wait_ready(client.deploy(spec).id)
        free = [woken(client, service, address["gateway"], key) for _ in range(ROUNDS)]
        job = client.submit(
            JobSpec(
                name="elastic",
                kind=WorkloadKind.TRAIN,
                recipe="chaos-workload",
                gang=GangSpec(min=1, want=2, max=2),
                settings={"steps": 100_000, "width": 64, "batch": 8, "pause_ms": 50.0},
            )
        )
        held, reclaims = [], []
        for _ in range(ROUNDS):
            until(lambda: len(client.call(calls.job(job.id)).status.ranks) == 2)
            until(partial(has_passed, client, job.id, client.call(calls.job(job.id)).status.step))
            status = client.call(calls.job(job.id)).status
            held.append(woken(client, service, address["gateway"], key))
            reclaims.append(reclaim_s(client, service, job.id, status))
        client.call(calls.cancel(job.id))
        client.call(calls.stop_service(service.id))
    return free, held, reclaims


def has_passed(client: Client, job: str, step: int) -> bool:
    """Whether a job is a few steps further than a step."""
    return client.call(calls.job(job)).status.step > step + 5


def woken(client: Client, service: Service, url: str, key: str) -> float:
    """Seconds of a request to the service while it has no replica."""
    until(lambda: client.call(calls.service(service.id)).state == State.IDLE)
    began = time.monotonic()
    ask(url, key)
    return time.monotonic() - began


def reclaim_s(client: Client, service: Service, job: str, before: Status) -> float:
    """Seconds from the end of the last step of two ranks to the replica's device."""
    held = client.call(pool_calls.allocations())
    since = max(one.since for ident, one in held.items() if ident.startswith(service.id))
    rows = client.call(calls.metrics(job, after=before.step - 20))
    return since - max(one.at for one in rows if one.generation <= before.generation)


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, for two minutes at most."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)


if __name__ == "__main__":
    main()
