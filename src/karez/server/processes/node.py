"""A host that joins a cloud: asks control for the join configuration, then runs a Ray node."""

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
from karez.core.errors import NotAllowed, NotSignedIn, ProtocolMismatch, Unreachable
from karez.core.messages.wire import PROTOCOL, PROTOCOL_HEADER, protocol_mismatch
from karez.core.settings import Settings
from karez.server.processes.descendants import adopt_orphans, end_descendants
from karez.server.processes.report import Report
from karez.server.wiring import joined_ray_env, refuse_emulation_beside_real_devices
from karez.vault.keys import write_private

NODE_KEY = "node.key"
"""File of this host's key in its folder: it joins again without a token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinRequest:
    """Options of `karez join`."""

    url: str
    token: str
    address: str
    name: str
    home: Path
    emulate: str = ""
    object_store_bytes: int = 100_000_000


def join_request() -> JoinRequest:
    """Read the options from the environment that `karez join` sets."""
    env = os.environ  # noqa: TID251 - the options of this program
    return JoinRequest(
        url=env[environment.JOIN_URL].rstrip("/"),
        token=env.get(environment.JOIN_TOKEN, "").strip(),
        address=env[environment.JOIN_ADDRESS],
        name=env[environment.JOIN_NAME] or socket.gethostname(),
        home=Path(env[environment.NODE_HOME]),
        emulate=env.get(environment.NODE_EMULATE, ""),
    )


def run_node(settings: Settings, report: Report) -> int:
    """Run a node until SIGTERM, Ctrl-C, or the cluster has been out of reach for too long.

    Raises:
        Unreachable: Control does not answer.
        NotSignedIn: Control refuses the token.
        ProtocolMismatch: Control runs another release of karez.
        BadRequest: This host cannot emulate what it is asked to.
    """
    del settings, report
    options = join_request()
    refuse_emulation_beside_real_devices(options.emulate)
    options.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    config = _fetch_config(options)
    token = options.home / "ray.token"
    write_private(token, config.ray_token)
    adopt_orphans()
    env = {**os.environ, **joined_ray_env(token), environment.NODE_HOME: str(options.home)}  # noqa: TID251 - handed on
    env.pop(environment.JOIN_TOKEN, None)
    folder = tempfile.mkdtemp(prefix="kz-") + "/r"  # Ray opens its own folder to everybody
    command = _ray_command(options, config.ray_address, folder)
    with (options.home / "ray.log").open("ab") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log)  # noqa: S603 - ours
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    sys.stdout.write(f"joined {options.url} as {options.name}; Ctrl-C leaves\n")
    sys.stdout.flush()
    try:
        code = process.wait()
    except KeyboardInterrupt:
        code = 0
    end_descendants()
    return code


def _ray_command(options: JoinRequest, ray_address: str, folder: str) -> list[str]:
    return [
        sys.executable,
        "-P",
        "-m",
        "ray.scripts.scripts",
        "start",
        f"--address={ray_address}",
        f"--node-ip-address={options.address}",
        "--block",
        "--disable-usage-stats",
        "--include-log-monitor=false",
        f"--object-store-memory={options.object_store_bytes}",
        "--num-cpus=2",
        f"--temp-dir={folder}",
        f"--labels=karez-host={options.name}",
    ]


def _fetch_config(options: JoinRequest) -> JoinConfig:
    """How to join: by the token, which is exchanged for a key, or by the key of an earlier join."""
    kept = options.home / NODE_KEY
    if options.token:
        try:
            config = _ask(options, options.token, {"name": options.name})
        except NotAllowed:  # it is a key of a node already
            return _ask(options, options.token, None)
        except NotSignedIn:
            if not kept.exists():
                raise
            return _ask(options, kept.read_text().strip(), None)  # it was this host's own token
        write_private(kept, config.node_key)
        return config
    if not kept.exists():
        raise NotSignedIn
    return _ask(options, kept.read_text().strip(), None)


def _ask(options: JoinRequest, key: str, exchange: dict[str, str] | None) -> JoinConfig:
    headers = {"Authorization": f"Bearer {key}", PROTOCOL_HEADER: str(PROTOCOL)}
    request = urllib.request.Request(  # noqa: S310 - the user's own cloud
        f"{options.url}/api/v1/node/join",
        headers={**headers, "Content-Type": "application/json"},
        data=None if exchange is None else json.dumps(exchange).encode(),
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - the user's own cloud
            config = json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code == ProtocolMismatch.status:
            raise ProtocolMismatch(problem=_problem_in(error)) from error
        if error.code == NotAllowed.status:
            raise NotAllowed(needed="join", held="another role", project="*") from error
        raise NotSignedIn from error
    except (urllib.error.URLError, OSError) as error:
        raise Unreachable(what_is_it="karez", address=options.url) from error
    if problem := protocol_mismatch(config.get("protocol")):
        raise ProtocolMismatch(problem=problem)
    return from_json(JoinConfig, config)


def _problem_in(error: urllib.error.HTTPError) -> str:
    """What control says of the mismatch."""
    try:
        return str(json.load(error)["fields"]["problem"])
    except (ValueError, KeyError, TypeError):
        return "control refuses the protocol of this host"
