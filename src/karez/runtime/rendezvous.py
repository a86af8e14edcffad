"""The store through which the ranks of one generation find each other; lives in no rank."""

import os
import socket
import threading

import torch.distributed as dist

from karez.core import environment
from karez.runtime.agent_client import AgentClient, rank_environment


def main() -> None:
    """Serve on this node's address until killed, after telling the steward where."""
    place = rank_environment()
    server = socket.create_server((place.address, 0))
    port = server.getsockname()[1]
    store = dist.TCPStore(
        place.address,
        port,
        is_master=True,
        wait_for_workers=False,
        master_listen_fd=server.detach(),
        use_libuv=False,  # libuv's backend refuses a listening socket, and would bind all addresses
    )
    generation = int(os.environ[environment.GENERATION])  # noqa: TID251 - set by the foreman
    link = AgentClient(place.steward, place.key, lambda _: None)
    link.send("store", address=f"{place.address}:{port}", generation=generation)
    threading.Event().wait()
    del store
