"""Settings of a cloud, resolved from file, environment and flags."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from ipaddress import ip_network
from typing import Any

from karez.core.devices import parse_emulated
from karez.core.environment import of_setting
from karez.core.mounts import bind_mounts

FIRST_USER = 1_900_000_000
"""Far above the users that systems, directories and containers give out."""
MOST_PROCESSES = 16_384
LOG_BYTES = 64 * 2**20
MOST_GATEWAYS = 64
ACCESS_LOGS = ("off", "calls", "text")
OBJECT_STORES = ("s3", "gs", "az")
"""Schemes of blob stores that the extra `s3` reads: AWS_*, GOOGLE_* and AZURE_* variables hold
their keys and addresses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings, each documented under its field. The environment name is KAREZ_<FIELD>."""

    home: str = "~/.karez"
    """Folder that holds all state of this cloud."""
    host: str = "127.0.0.1"
    """Address that control, gateway and Ray listen on; if not loopback, other hosts can join."""
    port: int = 7070
    """Port of the control API."""
    gateway_port: int = 7080
    """Port of the OpenAI-compatible gateway."""
    gateway_processes: int = 1
    """Processes of the gateway, which share its port and keep all limits together; one answers
    what a core can."""
    ray_port: int = 7079
    """Port of the Ray head."""
    ray_address: str = ""
    """Address of an existing Ray cluster to use; empty starts one."""
    database: str = ""
    """SQLAlchemy URL of the store; empty is SQLite in the state folder."""
    blobs: str = ""
    """URL of the blob store, such as `s3://bucket/karez`; empty is a folder in the state folder."""
    node: str = ""
    """Name of this node; empty is the host name."""
    cpus: int = 0
    """CPU devices this node offers; 0 is all."""
    emulate: str = ""
    """Devices that this node emulates on its CPUs, such as `npu=4`; empty is none."""
    object_store_bytes: int = 100_000_000
    """Shared memory Ray may take on a node. karez moves no state through it."""
    tick_s: float = 0.5
    """Longest pause between two passes of the scheduler."""
    lease_s: float = 4.0
    """How long a control process owns a workload without renewing its lease."""
    fence_s: float = 600.0
    """How long a node goes on without contact to control before it stops its processes."""
    node_silence_s: float = 4.0
    """How long a node may be silent before its workers are moved."""
    heartbeat_s: float = 1.0
    """How long the heartbeat of a node with work may be missing before its ranks are moved."""
    checkpoint_s: float = 0.0
    """Seconds between two stored checkpoints of a training job; 0: by what failures and checkpoints
    cost (Young's and Daly's interval)."""
    hang_s: float = 5.0
    """A shorter step never counts as hung; a longer one does beyond five times the 99th percentile
    of steps."""
    quiesce_s: float = 5.0
    """How long a rank may take to leave its step when a generation ends, before it is killed."""
    start_s: float = 300.0
    """How long a rank may take until its process runs, and how long the others of a session wait
    for it after the first of them is ready (twice as long as a start took before, if longer)."""
    log_bytes: int = LOG_BYTES
    """Output that is kept of each process of a job or service, the newest; up to twice as much may
    be there for a moment."""
    fault_limit: int = 20
    """Recoveries without a new step after which a job is failed."""
    keep_failed_s: float = 604_800.0
    """How long the outputs of jobs that failed or were cancelled are kept; 0: not at all."""
    shared_user: bool = False
    """Whether all jobs run as the user of the cloud, who can read everything, and several projects
    may all the same: for teams that trust each other."""
    most_processes: int = MOST_PROCESSES
    """Processes and threads that the jobs of a project may have on a node that runs as root; 0: any
    number."""
    bind_paths: str = ""
    """Folders of nodes, with commas, that jobs see where they would not (below /tmp, or in a folder
    that only root may enter), and `:rw` behind those that they may write into, as far as their
    permissions allow it."""
    first_user: int = FIRST_USER
    """Number of the first of the 65,536 users (uid and gid) that nodes run as root give to
    projects."""
    requests_per_s: float = 200.0
    """Requests that each key may send to the control API in a second, over ten seconds; 0: any."""
    access_log: str = "calls"
    """What the gateway's access log has of each request: `off`, `calls` (who called what, and how
    that ended) or `text` (what was asked too)."""
    trusted_proxies: str = ""
    """Ranges of addresses, with commas, of proxies before the gateway: what they say in
    `x-forwarded-for` is where a call comes from."""
    alert_hosts: str = ""
    """Hosts, with commas, that the webhooks of alerts may be on; empty: any but this one and those
    that only its link reaches."""
    smtp: str = ""
    """Mail server for alerts, such as `smtp://user:password@mail.example.com:587`, or `smtps://`;
    empty: no mail is sent."""
    mail_from: str = "karez@localhost"
    """Sender of the mails."""
    otlp_endpoint: str = ""
    """Endpoint of an OpenTelemetry collector that gets the traces of jobs, over OTLP/HTTP, such as
    `http://collector:4318`; empty: traces are not sent."""
    preload: bool = True
    """Whether nodes import torch ahead of time, so that ranks start in milliseconds."""


def resolve(
    file: str, environ: Mapping[str, str], flags: Mapping[str, object]
) -> tuple[Settings, Mapping[str, str]]:
    """Resolve settings from TOML text, the environment and flags; the later wins.

    Returns:
        The settings, and the origin of each field's value.

    Raises:
        ValueError: Unknown key in the file, or a value of the wrong type.
    """
    known = {field.name: field for field in fields(Settings)}
    table = tomllib.loads(file) if file else {}
    unknown = sorted(set(table) - set(known))
    if unknown:
        raise ValueError(f"karez.toml has an unknown key {unknown[0]!r}; known: {sorted(known)}")
    values: dict[str, Any] = {}
    origin = dict.fromkeys(known, "default")
    layers = (
        ("file", table),
        (
            "environment",
            {k: environ[of_setting(k)] for k in known if of_setting(k) in environ},
        ),
        ("flag", {k: v for k, v in flags.items() if v is not None}),
    )
    for name, layer in layers:
        for key, raw in layer.items():
            values[key] = _typed(key, raw, type(getattr(Settings(), key)))
            origin[key] = name
    parse_emulated(values.get("emulate", ""))
    bind_mounts(values.get("bind_paths", ""))
    address_ranges(values.get("trusted_proxies", ""))
    if not 1 <= values.get("gateway_processes", 1) <= MOST_GATEWAYS:
        raise ValueError(f"gateway_processes should be 1 to {MOST_GATEWAYS}")
    if values.get("access_log", ACCESS_LOGS[0]) not in ACCESS_LOGS:
        raise ValueError(f"access_log should be one of {', '.join(ACCESS_LOGS)}")
    return replace(Settings(), **values), origin


def address_ranges(text: str) -> tuple[str, ...]:
    """Read ranges of addresses with commas between them, such as 10.0.0.0/8. Raises ValueError."""
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    for one in found:
        ip_network(one)
    return found


def _typed(key: str, raw: object, kind: type) -> object:
    if kind is bool and isinstance(raw, str):
        if raw.lower() not in ("1", "0", "true", "false", "yes", "no"):
            raise ValueError(f"{key} should be true or false, not {raw!r}")
        return raw.lower() in ("1", "true", "yes")
    try:
        return raw if isinstance(raw, kind) else kind(raw)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{key} should be {kind.__name__}, not {raw!r}") from error
