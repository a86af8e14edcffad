"""A host that joins a cloud: asks control for the paper, then is a Ray node until it ends."""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from karez.core import environment
from karez.core.api_models import JoinConfig
from karez.core.codec import from_json
from karez.core.errors import NotSignedIn, Unreachable
from karez.server.processes.supervisor import end_descendants
from karez.server.wiring import joined_ray_env
from karez.vault.keys import write_private

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinRequest:
    """What the user asked for."""

    url: str
    token: str
    address: str
    name: str
    home: Path
    object_store_bytes: int = 100_000_000


def join_request() -> JoinRequest:
    """From the environment that `karez join` sets."""
    env = os.environ  # noqa: TID251 - this program's own door
    return JoinRequest(
        url=env[environment.JOIN_URL].rstrip("/"),
        token=env[environment.JOIN_TOKEN],
        address=env[environment.JOIN_ADDRESS],
        name=env[environment.JOIN_NAME] or socket.gethostname(),
        home=Path(env[environment.NODE_HOME]),
    )


def run_node(order: JoinRequest) -> int:
    """Be a node until SIGTERM, Ctrl-C, or the cluster has been out of reach for too long.

    Raises:
        Unreachable: Control does not answer.
        NotSignedIn: It does not take the token.
    """
    paper = _ask(order)
    order.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    token = order.home / "ray.token"
    write_private(token, paper.ray_token)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    folder = tempfile.mkdtemp(prefix="kz-")
    env = {**os.environ, **joined_ray_env(token), environment.NODE_HOME: str(order.home)}  # noqa: TID251 - handed on
    env.pop(environment.JOIN_TOKEN, None)
    command = [
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "start",
        f"--address={paper.ray_address}",
        f"--node-ip-address={order.address}",
        "--block",
        "--disable-usage-stats",
        "--include-log-monitor=false",
        f"--object-store-memory={order.object_store_bytes}",
        "--num-cpus=2",
        f"--temp-dir={folder}",
        f"--labels=karez-host={order.name}",
    ]
    with (order.home / "ray.log").open("ab") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log)  # noqa: S603 - ours
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    sys.stdout.write(f"joined {order.url} as {order.name}; Ctrl-C leaves\n")
    sys.stdout.flush()
    try:
        code = process.wait()
    except KeyboardInterrupt:
        code = 0
    end_descendants()
    return code


def _ask(order: JoinRequest) -> JoinConfig:
    request = urllib.request.Request(  # noqa: S310 - the user's own cloud
        f"{order.url}/api/v1/node/join", headers={"Authorization": f"Bearer {order.token}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - as above
            return from_json(JoinConfig, json.load(answer))
    except urllib.error.HTTPError as error:
        raise NotSignedIn from error
    except (urllib.error.URLError, OSError) as error:
        raise Unreachable(what_is_it="karez", address=order.url) from error
