"""A temporary cloud for commands that need one while none runs."""

import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from karez.cli.remote.cloud_process import start_cloud, stop_cloud
from karez.client.address import find_address
from karez.core import environment


@contextmanager
def running_cloud(say: Callable[[str], object]) -> Iterator[None]:
    """Use the running cloud, or start a temporary cloud and stop it afterwards."""
    if find_address().is_up or environment.URL in os.environ:  # noqa: TID251 - the client's door
        yield
        return
    with tempfile.TemporaryDirectory(prefix="kz-") as folder:
        ports = _free_ports(3)
        names = (environment.PORT, environment.GATEWAY_PORT, environment.RAY_PORT)
        env = {environment.HOME: f"{folder}/home", **dict(zip(names, map(str, ports), strict=True))}
        os.environ.update(env)  # noqa: TID251 - the client finds the cloud by these names
        say("no cloud is running: starting a temporary one")
        supervisor, _ = start_cloud(env, say=lambda _: None)
        try:
            yield
        finally:
            stop_cloud(supervisor.pid)
            supervisor.wait()


def _free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports
