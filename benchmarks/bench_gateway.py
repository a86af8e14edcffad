"""The gateway beside nginx and LiteLLM: requests and streams a second and core, and added time.

Claims, of one run on one machine with one pretended model server: at least 0.45 of nginx's requests
a second of CPU time and 250 of LiteLLM's, with a key checked, a route found and usage recorded for
each; at least 0.5 of nginx's streams; at one connection at most 0.15 ms more than no proxy at the
median and 0.5 ms at the 99th percentile. nginx checks, routes and records nothing.

Needs nginx and wrk (Debian: nginx-light, wrk). LiteLLM is left out unless LITELLM names its
program, which `pip install 'litellm[proxy]'` puts into an environment of its own.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from report import report

HERE = Path(__file__).parent
SECONDS = float(os.environ.get("SECONDS_EACH", "8"))
ROUNDS = int(os.environ.get("ROUNDS", "3"))
STREAMS = {"karez": 200, "nginx": 200, "litellm": 20}
CORES = sorted(os.sched_getaffinity(0))
PROXY_CORE, OTHER_CORES = CORES[0], CORES[1:] or CORES
NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_body_temp_path {folder}; proxy_temp_path {folder};
  fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
  upstream model {{ server 127.0.0.1:{upstream}; keepalive 512; }}
  keepalive_requests 100000000;
  server {{ listen 127.0.0.1:{port}; location / {{
    proxy_pass http://model; proxy_http_version 1.1; proxy_set_header Connection "";
    proxy_buffering off; }} }}
}}
"""
LITELLM = """
model_list:
  - model_name: gpt
    litellm_params: {{model: openai/gpt, api_base: "http://127.0.0.1:{upstream}/v1", api_key: x}}
general_settings: {{master_key: sk-test}}
"""
WRK = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer {key}"
wrk.body = '{{"model":"gpt","messages":[{{"role":"user","content":"{text}"}}],"max_tokens":100}}'
"""


@dataclass(frozen=True)
class Proxy:
    """A running proxy."""

    name: str
    port: int
    key: str
    process: psutil.Process

    def cpu_s(self) -> float:
        """CPU time of the proxy and its workers."""
        all_of_it = [self.process, *self.process.children(recursive=True)]
        return sum(sum(one.cpu_times()[:2]) for one in all_of_it)


def main() -> None:
    """Measure in turn, some rounds, and compare medians."""
    missing = [name for name in ("nginx", "wrk") if shutil.which(name) is None]
    if missing:
        print(f"skipped: no {' and no '.join(missing)}: apt-get install nginx-light wrk")
        return
    with tempfile.TemporaryDirectory() as name, upstream() as port:
        folder = Path(name)
        rounds = [one_round(folder / str(number), port) for number in range(ROUNDS)]
    rows = {name: _medians([one[name] for one in rounds]) for name in rounds[0]}
    report("gateway", [{"proxy": name, **row} for name, row in rows.items()])
    ratios = [_ratio(rows, peer) for peer in ("nginx", "litellm") if peer in rows]
    added = {
        f"added_{key}": round(rows["karez"][key] - rows["no proxy"][key], 3)
        for key in ("p50_ms", "p99_ms", "first_p99_ms")
    }
    report("gateway ratios", ratios)
    report("gateway added", [{"karez to": "no proxy", **added}])


def _ratio(rows: Mapping[str, Mapping[str, float]], peer: str) -> dict[str, object]:
    keys = ("requests_per_cpu_s", "requests_per_s", "streams_per_cpu_s")
    shares = {key: round(rows["karez"][key] / rows[peer][key], 3) for key in keys}
    return {"karez to": peer, **shares}


def _medians(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: sorted(row[key] for row in rows)[len(rows) // 2] for key in rows[0]}


def one_round(folder: Path, upstream_port: int) -> dict[str, dict[str, float]]:
    """Measure each proxy once."""
    folder.mkdir()
    found = {"no proxy": measure(None, upstream_port, folder)}
    for name, start in (("nginx", nginx), ("karez", karez), ("litellm", litellm)):
        if name == "litellm" and not os.environ.get("LITELLM"):
            continue
        with start(folder, upstream_port) as proxy:
            found[name] = measure(proxy, proxy.port, folder)
    return found


def measure(proxy: Proxy | None, port: int, folder: Path) -> dict[str, float]:
    """Requests a second at 32 connections, time at one, and streams."""
    key = "none" if proxy is None else proxy.key
    script = folder / "wrk.lua"
    script.write_text(WRK.format(key=key, text="hello " * 40))
    run_wrk(port, script, 32, 1.0)
    cpu = 0.0 if proxy is None else proxy.cpu_s()
    rate, _, _ = run_wrk(port, script, 32, SECONDS)
    cpu = 0.0 if proxy is None else proxy.cpu_s() - cpu
    _, p50_ms, p99_ms = run_wrk(port, script, 1, SECONDS / 2)
    row = {"requests_per_s": rate, "requests_per_cpu_s": round(rate * SECONDS / cpu) if cpu else 0}
    row |= {"p50_ms": p50_ms, "p99_ms": p99_ms}
    streams = STREAMS.get("nginx" if proxy is None else proxy.name, 0)
    cpu = 0.0 if proxy is None else proxy.cpu_s()
    arguments = [str(HERE / "gateway_streams.py"), str(port), key, str(streams), str(SECONDS)]
    said = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=True, preexec_fn=others
    )
    told = json.loads(said.stdout)
    cpu = 0.0 if proxy is None else proxy.cpu_s() - cpu
    per_core = round(told["streams"] / cpu) if cpu else 0
    return {**row, "streams_per_cpu_s": per_core, **told}


def run_wrk(
    port: int, script: Path, connections: int, seconds: float
) -> tuple[float, float, float]:
    """(requests a second, p50 and p99 in ms). Raises where an answer is no success."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency"]
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    said = subprocess.run(
        [*command, "-s", str(script), url],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=others,
    ).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise SystemExit(f"not all answers were good:\n{said}")
    rate = float(re.findall(r"Requests/sec:\s+([\d.]+)", said)[0])
    p50, p99 = (
        float(number) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]
        for number, unit in (
            re.findall(rf"{mark}%\s+([\d.]+)(us|ms|s)", said)[0] for mark in (50, 99)
        )
    )
    return round(rate), round(p50, 3), round(p99, 3)


def others() -> None:
    """Leave the proxy's core to the proxy."""
    os.sched_setaffinity(0, OTHER_CORES)


def alone() -> None:
    """Run on the proxy's core."""
    os.sched_setaffinity(0, [PROXY_CORE])


@contextmanager
def upstream() -> Iterator[int]:
    """The pretended model server."""
    port = free_port()
    command = [sys.executable, str(HERE / "gateway_upstream.py"), str(port)]
    with subprocess.Popen(command, preexec_fn=others) as process:
        await_port(port)
        yield port
        process.terminate()


@contextmanager
def karez(folder: Path, upstream_port: int) -> Iterator[Proxy]:
    """The gateway of this project."""
    port = free_port()
    arguments = [str(port), f"http://127.0.0.1:{upstream_port}", str(folder)]
    command = [sys.executable, str(HERE / "gateway_karez.py"), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=alone) as process:
        assert process.stdout is not None
        key = process.stdout.readline().strip()
        yield Proxy("karez", port, key, psutil.Process(process.pid))
        process.terminate()


@contextmanager
def nginx(folder: Path, upstream_port: int) -> Iterator[Proxy]:
    """Nginx with one worker and connections that are kept."""
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, upstream=upstream_port, port=port))
    with subprocess.Popen(["nginx", "-c", str(config)], preexec_fn=alone) as process:
        await_port(port)
        yield Proxy("nginx", port, "none", psutil.Process(process.pid))
        process.terminate()


@contextmanager
def litellm(folder: Path, upstream_port: int) -> Iterator[Proxy]:
    """LiteLLM's proxy with one worker and no database."""
    port, config = free_port(), folder / "litellm.yaml"
    config.write_text(LITELLM.format(upstream=upstream_port))
    command = [os.environ["LITELLM"], "--config", str(config), "--port", str(port)]
    with subprocess.Popen(
        [*command, "--host", "127.0.0.1"],
        preexec_fn=alone,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        await_port(port, limit_s=120)
        time.sleep(3)
        yield Proxy("litellm", port, "sk-test", psutil.Process(process.pid))
        process.terminate()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def await_port(port: int, limit_s: float = 20.0) -> None:
    """Wait until somebody listens."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"nobody listens on port {port}")


if __name__ == "__main__":
    main()
