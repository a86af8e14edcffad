"""One project at full blast, while another project trains and asks the API.

Claim: neither costs the other more than 1.2 times what the same senders cost who are aimed at a
sink: a server that reads everything and does nothing. Of the training the processor time of a step
counts, of the API the time to answer; both are read beside the wall time of a step. The senders:
40 slow uploads, 900 half-open connections, anonymous bodies of 120 MB, jobs of the highest
priority as fast as they are taken (1,500 and more), and a job that prints without end.
"""

import hashlib
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx
from bench_recovery import free_port
from report import report

from karez.client import access_calls
from karez.client.sdk import Client
from karez.core.artifacts import ArtifactKind
from karez.core.gangs import GangSpec
from karez.core.identity import KeySpec, Project, Role
from karez.core.jobs import JobSpec
from karez.core.resource_requests import ResourceRequest
from karez.core.workloads import State, WorkloadKind

WATCH_S = float(os.environ.get("SECONDS_EACH", "15"))
CLAIM = 1.2
ATTACKS = ("slow uploads", "half-open", "large bodies", "jobs", "log flood")
FLOOD = ("sh", "-c", "yes flood-flood-flood-flood-flood-flood-flood-flood")
TRAIN = """
import os, time, torch
from torch import nn
from karez import training
with training.session(seed=1) as run, open(os.environ["BOOK"], "w", buffering=1) as book:
    model = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 1))
    optimizer = torch.optim.SGD(model.parameters(), 1e-4)
    run.track(model=model, optimizer=optimizer)
    rows = [torch.randn(64, 256) for _ in range(8)]
    for batch in run.steps(rows, total=10**9):
        for _ in range(8):
            optimizer.zero_grad()
            loss = model(batch).pow(2).mean()
            loss.backward()
            optimizer.step()
        run.commit(loss=loss)
        book.write(f"{time.monotonic()} {time.process_time()}\\n")
        time.sleep(0.02)
"""


def main() -> None:
    """Measure each attack on a cloud, and on a sink, in turn."""
    if sys.argv[1:2] == ["sink"]:
        serve_sink(int(sys.argv[2]))
    if sys.argv[1:]:
        send(*sys.argv[1:])
        return
    with tempfile.TemporaryDirectory(prefix="kz-") as name, sink() as nowhere:
        folder = Path(name)
        (folder / "shared").mkdir()
        (folder / "shared").chmod(0o777)
        env = {**os.environ, "KAREZ_HOME": str(folder / "home"), "KAREZ_CPUS": "2"}
        env |= {"KAREZ_BIND_PATHS": f"{folder / 'shared'}:rw"}
        for part in ("PORT", "GATEWAY_PORT", "RAY_PORT"):
            env[f"KAREZ_{part}"] = str(free_port())
        os.environ |= env
        karez = [sys.executable, "-m", "karez.cli.main"]
        subprocess.run([*karez, "up"], check=True, capture_output=True)
        try:
            rows = measure_all(folder, f"http://127.0.0.1:{env['KAREZ_PORT']}", nowhere)
        finally:
            subprocess.run([*karez, "down"], check=True, capture_output=True)
    report("doors", rows)
    over = [row["attack"] for row in rows if max(row["step_cpu"], row["api_p99"]) > CLAIM]
    if over:
        sys.exit(f"more than {CLAIM} times the sink's cost: {', '.join(map(str, over))}")


def measure_all(folder: Path, url: str, nowhere: str) -> list[dict[str, Any]]:
    """One row for each attack."""
    with Client() as client:
        for name in ("attacker", "victim"):
            client.call(access_calls.add_project(Project(name=name)))
        keys = {
            name: client.create_key(KeySpec(name=name, project=name, role=Role.MEMBER)).key
            for name in ("attacker", "victim")
        }
    with Client(url=url, key=keys["victim"]) as victim:
        job = start_training(victim, folder)
        book = folder / "shared" / "book"
        probe = Probe(url, keys["victim"], job)
        rows = []
        for attack in ATTACKS:
            costs = {}
            for at, to in (("sink", nowhere), ("cloud", url)):
                with sending(attack, to, keys["attacker"], is_real=at == "cloud"):
                    time.sleep(2.0)  # until it is under way
                    costs[at] = watch(book, probe)
                time.sleep(3.0)  # until what it left is cleared away
            rows.append(row(attack, costs["sink"], costs["cloud"]))
        victim.cancel(job)
    return rows


def start_training(victim: Client, folder: Path) -> str:
    """A training of the victim; returns its id once it makes steps."""
    code = folder / "code"
    code.mkdir()
    (code / "train.py").write_text(TRAIN)
    artifact = victim.upload(code, name="code", kind=ArtifactKind.CODE, project="victim")
    book = folder / "shared" / "book"
    spec = JobSpec(
        name="train",
        project="victim",
        kind=WorkloadKind.TRAIN,
        command=("python", "train.py"),
        code=artifact.id,
        env={"BOOK": str(book)},
        gang=GangSpec(each=(ResourceRequest(milli=1000),)),
    )
    job = victim.submit(spec)
    deadline = time.monotonic() + 120
    while not book.exists() or len(book.read_text().splitlines()) < 50:
        if time.monotonic() > deadline:
            raise SystemExit(f"the training does not start: {victim.job(job.id).status}")
        time.sleep(0.2)
    return job.id


class Probe:
    """Asks the API for the victim's job, ten times a second."""

    def __init__(self, url: str, key: str, job: str) -> None:
        self._http = httpx.Client(headers={"authorization": f"Bearer {key}"}, timeout=60)
        self._url = f"{url}/api/v1/jobs/{job}"

    def ask(self) -> float:
        """Seconds until the answer is here."""
        began = time.monotonic()
        answer = self._http.get(self._url)
        answer.raise_for_status()
        if answer.json()["state"] != State.RUNNING:
            raise SystemExit(f"the training does not run: {answer.text}")
        return time.monotonic() - began


def watch(book: Path, probe: Probe) -> Mapping[str, float]:
    """Processor and wall time of the steps, and the 99th percentile of answers, for a while."""
    first = len(book.read_text().splitlines())
    ends, asked = time.monotonic() + WATCH_S, []
    while time.monotonic() < ends:
        asked.append(probe.ask())
        time.sleep(0.1)
    lines = [tuple(map(float, line.split())) for line in book.read_text().splitlines()[first:-1]]
    pairs = list(itertools.pairwise(lines))
    return {
        "step_cpu": median(b[1] - a[1] for a, b in pairs),
        "step_wall": median(b[0] - a[0] for a, b in pairs),
        "api_p99": quantiles(asked, n=100)[98],
    }


def row(attack: str, sink_cost: Mapping[str, float], cost: Mapping[str, float]) -> dict[str, Any]:
    """The ratios of an attack, and the figures behind them in milliseconds."""
    ratios = {name: round(cost[name] / sink_cost[name], 2) for name in cost}
    figures = {
        f"{name}_ms": f"{1000 * sink_cost[name]:.1f} -> {1000 * cost[name]:.1f}" for name in cost
    }
    return {"attack": attack, **ratios, **figures}


@contextmanager
def sending(attack: str, url: str, key: str, *, is_real: bool) -> Iterator[None]:
    """Run the senders in a process of their own."""
    if attack == "log flood" and not is_real:
        process = subprocess.Popen(FLOOD, stdout=subprocess.DEVNULL, start_new_session=True)
    else:
        command = [sys.executable, __file__, attack, url, key]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield
        if process.poll() is not None:
            raise SystemExit(f"the senders of {attack!r} ended with {process.returncode}")
    finally:
        if process.stdin is not None:
            process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
        if process.poll() is None:
            os.killpg(process.pid, 9)
            process.wait()


def send(attack: str, url: str, key: str) -> None:
    """Be the senders of an attack, until standard input closes."""
    over = threading.Event()

    def follow() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=follow, daemon=True).start()
    {
        "slow uploads": slow_uploads,
        "half-open": half_open,
        "large bodies": large_bodies,
        "jobs": many_jobs,
        "log flood": log_flood,
    }[attack](url, key, over)


def dial(url: str) -> socket.socket:
    """A connection to the server of a URL."""
    host, _, port = url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def hold(url: str, text: bytes, count: int, over: threading.Event) -> None:
    """Keep connections open that say the beginning of a request, and no more."""
    streams: list[socket.socket] = []
    while not over.wait(0.2):
        alive = []
        for stream in streams:
            stream.setblocking(False)
            try:
                if stream.recv(4096):
                    alive.append(stream)
            except BlockingIOError:
                alive.append(stream)
            except OSError:
                stream.close()
        streams = alive
        for _ in range(count - len(streams)):
            with suppress(OSError):
                stream = dial(url)
                stream.sendall(text)
                streams.append(stream)


def slow_uploads(url: str, key: str, over: threading.Event) -> None:
    """Three bytes of each, and no more."""
    digest = hashlib.sha256(b"x").hexdigest()
    head = f"PUT /api/v1/blobs/{digest} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
    hold(url, f"{head}content-length: 100000\r\n\r\nabc".encode(), 40, over)


def half_open(url: str, _key: str, over: threading.Event) -> None:
    """Half of a head, and no more."""
    hold(url, b"GET /api/v1/jobs HTTP/1.1\r\nhost: x\r\n", 900, over)


def large_bodies(url: str, _key: str, over: threading.Event) -> None:
    """Two at a time, without a key."""
    piece = b"1," * (1 << 19)

    def one() -> None:
        while not over.is_set():
            with suppress(OSError), dial(url) as stream:
                head = "POST /api/v1/jobs HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                stream.sendall(f"{head}content-length: 120000000\r\n\r\n".encode() + b'{"a":[')
                for _ in range(114):
                    if over.is_set():
                        return
                    stream.sendall(piece)
                stream.recv(4096)

    workers = [threading.Thread(target=one) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def many_jobs(url: str, key: str, over: threading.Event) -> None:
    """As fast as they are taken or refused, at the highest priority that there is."""
    body = json.dumps(
        {"name": "j", "project": "attacker", "command": ["true"], "priority": 1_000_000}
    ).encode()
    allowed = body.replace(b"1000000", b"0")
    with httpx.Client(headers={"authorization": f"Bearer {key}"}, timeout=60) as http:
        headers = {"content-type": "application/json"}
        while not over.is_set():
            for text in (body, allowed):
                http.post(f"{url}/api/v1/jobs", content=text, headers=headers)
        if http.get(f"{url}/api/v1/whoami").status_code == 200:
            drop_jobs(http, url)


def drop_jobs(http: httpx.Client, url: str) -> None:
    """Cancel what was taken."""
    for job in http.get(f"{url}/api/v1/jobs?limit=1000&state=queued").json():
        if not job["ended_at"]:
            http.post(f"{url}/api/v1/jobs/{job['id']}/cancel")


def log_flood(url: str, key: str, over: threading.Event) -> None:
    """A job that prints as fast as it can."""
    with Client(url=url, key=key) as client:
        each = (ResourceRequest(milli=1000),)
        spec = JobSpec(name="flood", project="attacker", command=FLOOD, gang=GangSpec(each=each))
        job = client.submit(spec)
        over.wait()
        client.cancel(job.id)


@contextmanager
def sink() -> Iterator[str]:
    """A process that serves as a sink; its address."""
    port = free_port()
    process = subprocess.Popen([sys.executable, __file__, "sink", str(port)])
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def serve_sink(port: int) -> None:
    """Read what comes, and do nothing."""

    class Sink(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            left = int(self.headers.get("content-length", 0))
            while left > 0 and (piece := self.rfile.read(min(left, 1 << 20))):
                left -= len(piece)
            self.send_response(401)
            self.send_header("content-length", "0")
            self.end_headers()

        do_PUT = do_GET = do_POST

        def log_message(self, *_: object) -> None:
            return

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 1024

        def handle_error(self, *_: object) -> None:
            return

    Server(("127.0.0.1", port), Sink).serve_forever()


if __name__ == "__main__":
    main()
