"""The ports of this node at which scripts' own process groups meet (MASTER_PORT)."""

import random
import socket
import threading

from karez.core.workloads import WorkloadId

PORTS = range(20_000, 30_000)
"""Below Linux's default range of ephemeral ports (32768 and up, ip(7)): no client socket is given
one of them."""


class MasterPorts:
    """One free port per start of a workload, kept from every other program of this host.

    A reserved port is bound and not listened at. With SO_REUSEADDR on both sockets Linux lets the
    rank bind it as well and listen (socket(7)), as torch's TCPStore does; a port that anyone has
    bound is never reserved, be it by another cloud on this host.
    """

    def __init__(self) -> None:
        """Reserve nothing yet."""
        self._reserved: dict[WorkloadId, tuple[str, socket.socket]] = {}
        self._lock = threading.Lock()

    def reserve(self, workload: WorkloadId, start_id: str) -> int:
        """The port of this start of a workload; that of an earlier start is released.

        Raises:
            OSError: no port is free.
        """
        with self._lock:
            known, bound = self._reserved.get(workload, ("", None))
            if bound is not None and known == start_id:
                return _port_of(bound)
            self._release(workload)
            bound = _bind_free()
            self._reserved[workload] = (start_id, bound)
            return _port_of(bound)

    def release(self, workload: WorkloadId) -> None:
        """Give a workload's port back."""
        with self._lock:
            self._release(workload)

    def close(self) -> None:
        """Give all ports back."""
        with self._lock:
            for workload in list(self._reserved):
                self._release(workload)

    def _release(self, workload: WorkloadId) -> None:
        _, bound = self._reserved.pop(workload, ("", None))
        if bound is not None:
            bound.close()


def _bind_free() -> socket.socket:
    for port in random.sample(PORTS, len(PORTS)):
        bound = socket.socket()
        try:
            bound.bind(("", port))  # without SO_REUSEADDR: fails where anyone has it
        except OSError:
            bound.close()
            continue
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return bound
    raise OSError(f"no port of {PORTS.start} to {PORTS.stop - 1} is free on this node")


def _port_of(bound: socket.socket) -> int:
    port: int = bound.getsockname()[1]
    return port
