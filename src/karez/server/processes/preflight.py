"""Checks before a cloud starts: Ray is installed, ports are free, disks have space."""

import shutil
import socket
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from karez.core.errors import BadRequest, MissingPart, PortTaken, StorageFull
from karez.core.settings import OBJECT_STORES, Settings

MIN_FREE_BYTES = 64 << 20
"""With less shared memory, no rank could keep two snapshots of even a small adapter."""
RAY_PORTS = range(10_001, 20_000)
"""Ray's client server, and its workers by default. Source: Ray 2.60, "Configuring Ray", Ports
configurations."""
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - shared memory is meant


def check_host(settings: Settings, home: Path) -> None:
    """Check that a cloud can start on this host.

    Raises:
        MissingPart: Ray is not installed, or what a setting needs.
        BadRequest: A port is one that Ray's processes use, or is there twice.
        PortTaken: Another program listens at one of the cloud's ports.
        StorageFull: Shared memory or the state folder's disk is full.
    """
    if find_spec("ray") is None:
        raise MissingPart(
            part="Ray", needed_for="running anything", install="pip install 'karez[server]'"
        )
    if settings.otlp_endpoint and not _has_opentelemetry():
        raise MissingPart(
            part="OpenTelemetry's SDK",
            needed_for="sending traces to `otlp_endpoint`",
            install="pip install 'karez[trace]'",
        )
    scheme, separator, _ = settings.blobs.partition("://")
    if separator and scheme in OBJECT_STORES and find_spec("obstore") is None:
        raise MissingPart(
            part="obstore",
            needed_for=f"blobs at {settings.blobs}",
            install="pip install 'karez[s3]'",
        )
    ports = {"port": settings.port, "gateway_port": settings.gateway_port}
    if not settings.ray_address:
        ports["ray_port"] = settings.ray_port
        _refuse_ports_of_ray(ports)
    for port in ports.values():
        _check_port(settings.host, port)
    for path in (SHARED_MEMORY, str(home)):
        if shutil.disk_usage(path).free < MIN_FREE_BYTES:
            raise StorageFull(path=path, wanted_bytes=MIN_FREE_BYTES)


def _refuse_ports_of_ray(ports: Mapping[str, int]) -> None:
    for name, port in ports.items():
        if port in RAY_PORTS:
            raise BadRequest(
                problem=f"{name} is {port}, and Ray's own processes listen on"
                f" {RAY_PORTS.start} to {RAY_PORTS.stop - 1}",
                fix="Choose a port below or above, such as with `karez up --port`.",
            )
        if list(ports.values()).count(port) > 1:
            raise BadRequest(problem=f"{name} is {port}, as another port of this cloud")


def _has_opentelemetry() -> bool:
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:
        return False


def _check_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortTaken(port=port) from error
