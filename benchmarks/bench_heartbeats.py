"""Heartbeats of 1,000 nodes: CPU time and threads of who hears them.

Claim: one thread hears a thousand nodes. The peer is a thread for each node, as karez had before.
"""

import asyncio
import multiprocessing
import socket
import threading
import time
from multiprocessing.connection import Connection

from report import report

from karez.core.messages.greetings import HeartbeatGreeting
from karez.drivers.heartbeats import HeartbeatListener
from karez.drivers.steward.heartbeat import BEAT_S
from karez.transport import framing

NODES = 1000
SECONDS = 10.0


def nodes(told: Connection) -> None:
    """A port for each node, at which heartbeats are sent, in a process of its own."""

    async def beat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(64)
        while not writer.is_closing():
            writer.write(b".")
            await asyncio.sleep(BEAT_S)

    async def serve() -> None:
        servers = [await asyncio.start_server(beat, "127.0.0.1", 0) for _ in range(NODES)]
        told.send([server.sockets[0].getsockname()[1] for server in servers])
        await asyncio.Event().wait()

    asyncio.run(serve())


def by_threads(ports: list[int]) -> None:
    """A thread for each node, which waits for its next beat."""

    def follow(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as stream:
            framing.send_message(stream, HeartbeatGreeting(token="t"))
            while stream.recv(64):
                continue

    for port in ports:
        threading.Thread(target=follow, args=(port,), daemon=True).start()


def by_one_thread(ports: list[int]) -> None:
    """What control does."""
    listener = HeartbeatListener("t", 1.0)
    for port in ports:
        listener.follow(f"127.0.0.1:{port}")


def measured(told: Connection, name: str, ports: list[int]) -> None:
    """Hear all nodes for a while in this process, and tell what that took."""
    {"one thread": by_one_thread, "a thread for each node": by_threads}[name](ports)
    time.sleep(3.0)
    began_s, cpu_s = time.monotonic(), time.process_time()
    time.sleep(SECONDS)
    share = (time.process_time() - cpu_s) / (time.monotonic() - began_s)
    told.send({"who": name, "cores": round(share, 3), "threads": threading.active_count() - 1})


def main() -> None:
    """Measure both, one after the other, in processes of their own."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    beating = context.Process(target=nodes, args=(there,), daemon=True)
    beating.start()
    ports = here.recv()
    rows = []
    for name in ("a thread for each node", "one thread"):
        mine, its = context.Pipe()
        hearing = context.Process(target=measured, args=(its, name, ports), daemon=True)
        hearing.start()
        rows.append(mine.recv())
        hearing.terminate()
        hearing.join()
    beating.terminate()
    report(f"heartbeats of {NODES:,} nodes", rows)


if __name__ == "__main__":
    main()
