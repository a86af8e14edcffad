"""A process group that can be aborted: gloo, which has no abort of its own.

A blocked gloo collective ends at once when its connected sockets are shut down; nothing in the
API does that (torch 2.13), so the sockets that `init_process_group` opened are remembered.
"""

import datetime
import os
import socket
import threading
from dataclasses import dataclass

import torch
import torch.distributed as dist

_LONG = datetime.timedelta(days=2)
"""Collectives have no deadline of their own: the foreman ends a generation, not a timer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """One rank's place in the group of one generation."""

    generation: int
    rank: int
    world: int
    store: str
    """host:port of the rendezvous store."""


class Group:
    """abort / rebuild / drop for gloo. `abort` may come from another thread."""

    def __init__(self) -> None:
        """No group yet."""
        self._sockets: dict[int, str] = {}
        self._lock = threading.Lock()

    def rebuild(self, member: Membership, *, within_s: float = 20.0) -> None:
        """Form the group of a generation.

        Raises:
            RuntimeError: A member did not come or died meanwhile.
        """
        self.drop()
        host, _, port = member.store.rpartition(":")
        limit = datetime.timedelta(seconds=within_s)
        store = dist.TCPStore(host, int(port), is_master=False, timeout=limit, use_libuv=False)
        before = _open_sockets()
        dist.init_process_group(
            "gloo",
            store=dist.PrefixStore(f"g{member.generation}", store),
            rank=member.rank,
            world_size=member.world,
            timeout=limit,
        )
        with self._lock:
            self._sockets = {k: v for k, v in _open_sockets().items() if before.get(k) != v}
        dist.distributed_c10d._set_pg_timeout(_LONG)

    def abort(self) -> None:
        """Make every collective under way fail within milliseconds."""
        with self._lock:
            for fd, name in self._sockets.items():
                _shut(fd, name)

    def drop(self) -> None:
        """Leave the group, if there is one."""
        with self._lock:
            self._sockets = {}
        if dist.is_initialized():
            dist.destroy_process_group()

    @property
    def world(self) -> int:
        """How many ranks; 1 without a group."""
        return dist.get_world_size() if dist.is_initialized() else 1

    def average(self, tensors: list[torch.Tensor]) -> None:
        """Replace tensors by their mean over the ranks. Raises RuntimeError when aborted."""
        flat = torch.cat([t.detach().reshape(-1).to("cpu", torch.float32) for t in tensors])
        dist.all_reduce(flat)
        flat /= self.world
        at = 0
        for tensor in tensors:
            piece = flat[at : at + tensor.numel()]
            tensor.copy_(piece.view(tensor.shape).to(tensor.dtype))
            at += tensor.numel()

    def same(self, tensors: list[torch.Tensor]) -> None:
        """Give every rank the first rank's values. Raises RuntimeError when aborted."""
        for tensor in tensors:
            copy = tensor.detach().to("cpu").contiguous()
            dist.broadcast(copy, 0)
            tensor.copy_(copy)

    def hand_out(self, body: bytes, source: int) -> bytes:
        """Give every rank the bytes of one. Raises RuntimeError when aborted."""
        size = torch.tensor([len(body)])
        dist.broadcast(size, source)
        data = torch.empty(int(size), dtype=torch.uint8)
        if dist.get_rank() == source:
            data.copy_(torch.frombuffer(bytearray(body), dtype=torch.uint8))
        dist.broadcast(data, source)
        return bytes(data.numpy().tobytes())

    def meet(self) -> None:
        """Wait until every rank is here. Raises RuntimeError when aborted."""
        dist.all_reduce(torch.zeros(1))


def _open_sockets() -> dict[int, str]:
    found: dict[int, str] = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the listing's own descriptor
        if target.startswith("socket:"):
            found[int(name)] = target
    return found


def _shut(fd: int, name: str) -> None:
    """Shut a connected socket; a listening one must live, or gloo's own thread dies."""
    try:
        if os.readlink(f"/proc/self/fd/{fd}") != name:
            return
        with socket.socket(fileno=os.dup(fd)) as copy:
            if not copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                copy.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # closed meanwhile, which is as good
