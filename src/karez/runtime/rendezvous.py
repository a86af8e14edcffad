"""The rendezvous store of one generation, in a process of its own beside the ranks."""

import os
import socket
import threading

import torch.distributed as dist

from karez.core import environment
from karez.core.messages.reports import RendezvousReport
from karez.runtime.agent_client import AgentClient
from karez.runtime.rank_environment import rank_environment


def main() -> None:
    """Serve on this node's address until killed; the node agent gets the port."""
    here = rank_environment()
    server = socket.create_server((here.address, 0))
    port = server.getsockname()[1]
    store = dist.TCPStore(
        here.address,
        port,
        is_master=True,
        wait_for_workers=False,
        master_listen_fd=server.detach(),
        use_libuv=False,  # libuv's backend refuses a listening socket, and would bind all addresses
    )
    generation = int(os.environ[environment.GENERATION])  # noqa: TID251 - set by the job controller
    agent = AgentClient(here, lambda _: None)
    agent.send(RendezvousReport(address=f"{here.address}:{port}", generation=generation))
    threading.Event().wait()
    del store
