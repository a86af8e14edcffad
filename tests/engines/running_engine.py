"""An engine's process as a node agent starts it, and its answers."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from karez.core import environment
from karez.core.codec import to_text
from karez.core.engines import EngineLaunch, adapter_folder
from karez.transport import framing

KEY = "engine-key"
START_S = 240.0


@contextmanager
def running_engine(
    module: str,
    model: Path,
    launch: EngineLaunch,
    folder: Path,
    *,
    adapters: tuple[Path, ...] = (),
    env: Mapping[str, str] | None = None,
) -> Iterator[httpx.Client]:
    """Start the process of an engine, and yield a client of it."""
    inputs = folder / "inputs"
    inputs.mkdir(parents=True)
    (inputs / "model").symlink_to(model)
    for number, path in enumerate(adapters):
        (inputs / adapter_folder(number)).symlink_to(path)
    with socket.socket(socket.AF_UNIX) as steward:
        steward.bind(str(folder / "s.sock"))
        steward.listen()
        variables = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(folder),
            "OMP_NUM_THREADS": "2",
            environment.ENGINE: to_text(launch),
            environment.ENGINE_KEY: KEY,
            environment.INPUTS: str(inputs),
            environment.ADDRESS: "127.0.0.1",
            environment.STEWARD: str(folder / "s.sock"),
            environment.KEY_NAME: "svc.0.0001",
            environment.PROCESS_TOKEN: "token",
            environment.DEVICE: "cpu",
            **(env or {}),
        }
        log = folder / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", module], env=variables, stdout=output, stderr=output
            )
        try:
            url, stream = _url(steward, process, log)
            with (
                stream,
                httpx.Client(
                    base_url=url, headers={"authorization": f"Bearer {KEY}"}, timeout=120
                ) as client,
            ):
                yield client
        finally:
            process.kill()
            process.wait()


def _url(
    steward: socket.socket, process: subprocess.Popen[bytes], log: Path
) -> tuple[str, socket.socket]:
    """Where the engine listens, and its connection to the node agent."""
    steward.settimeout(0.2)
    for _ in range(int(START_S / 0.2)):
        try:
            stream, _ = steward.accept()
        except TimeoutError:
            if process.poll() is not None:
                raise AssertionError(log.read_text()) from None
            continue
        stream.settimeout(10)
        greeting, report = (framing.receive(stream)[0] for _ in range(2))
        assert greeting["key"] == "svc.0.0001"
        return str(report["url"]), stream
    raise AssertionError(f"it did not start in {START_S} s: {log.read_text()}")


def events(answer: httpx.Response) -> list[Any]:
    """The events of a stream, without the last."""
    lines = [line[6:] for line in answer.text.split("\n") if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]
