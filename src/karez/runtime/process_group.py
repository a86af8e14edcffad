"""A process group that can be aborted and formed anew, by way of one of the wires."""

import datetime
import math
import threading
import time
from collections import Counter
from dataclasses import dataclass

import torch
import torch.distributed as dist

from karez.runtime.collective_backends import CollectiveBackend, GlooBackend

_TORN = ("gloo", "Connection", "closed by peer", "generation is over", "Broken pipe", "aborted")
"""What errors of a broken collective have in them (torch 2.13)."""
FORMING_S, FORMING_EACH_S = 2.0, 0.1
"""How long a group whose members are all there may take to form: 64 processes on two cores took
5.5 s (design notes on resilience), four take milliseconds."""
GRACE_S = 0.02
"""How long a broken collective may take to end by itself."""
_ABANDONED: list[tuple[dist.ProcessGroup, dist.Work]] = []
"""Groups with a collective that never ends: they are kept, for nobody can destroy them."""
_LONG = datetime.timedelta(days=2)
"""Collectives have no deadline of their own: the foreman ends a generation, not a timer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """One rank's place in the group of one generation."""

    generation: int
    rank: int
    world: int
    store: str
    """host:port of the rendezvous store; none for a group of one."""


class ReplicaMismatch(Exception):
    """Replicas that must be alike are not."""

    def __init__(self, ranks: tuple[int, ...]) -> None:
        """`ranks` differ from most; none: nobody is in the majority."""
        super().__init__(f"ranks {ranks} differ")
        self.ranks = ranks


class ProcessGroup:
    """abort / rebuild / drop. `abort` may come from another thread."""

    def __init__(self, wire: CollectiveBackend | None = None) -> None:
        """No group yet; gloo's wire unless another is given."""
        self._wire: CollectiveBackend = wire or GlooBackend()
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._is_aborted = False
        self._under_way: dist.Work | None = None

    def arm(self) -> None:
        """From here on an abort is meant for the group that is formed next."""
        with self._lock:
            self._is_aborted = False

    def rebuild(self, member: Membership, *, within_s: float = 20.0) -> None:
        """Form the group of a generation; `arm` comes first.

        Raises:
            RuntimeError: A member did not come or died meanwhile.
        """
        self.shutdown()
        with self._lock:
            if self._is_aborted:
                raise RuntimeError("the group was aborted")
            self._wire.begin()
        try:
            store = self._find_all(member, within_s) if member.store else dist.HashStore()
            self._wire.begin()
            dist.init_process_group(
                self._wire.backend,
                store=dist.PrefixStore(f"g{member.generation}", store),
                rank=member.rank,
                world_size=member.world,
                timeout=datetime.timedelta(seconds=max(FORMING_S, FORMING_EACH_S * member.world)),
            )
            with self._lock:
                self._wire.formed()
        finally:
            with self._lock:
                self._wire.settle()
        dist.distributed_c10d._set_pg_timeout(_LONG)

    def _find_all(self, member: Membership, within_s: float) -> dist.Store:
        """Until all ranks are there: gloo's own waiting for one that has died cannot be aborted."""
        host, _, port = member.store.rpartition(":")
        limit = datetime.timedelta(seconds=within_s)
        store = dist.TCPStore(host, int(port), is_master=False, timeout=limit, use_libuv=False)
        keys = [f"here/{member.generation}/{rank}" for rank in range(member.world)]
        store.set(keys[member.rank], "")
        deadline = time.monotonic() + within_s  # noqa: TID251 - a duration
        while not store.check(keys):
            if self._is_aborted or time.monotonic() > deadline:  # noqa: TID251 - as above
                raise RuntimeError("the group was aborted, or a member did not come")
            time.sleep(0.001)  # noqa: TID251 - the store wakes nobody
        return store

    def abort(self) -> None:
        """Make every collective under way fail within milliseconds."""
        with self._lock:
            self._is_aborted = True
            self._wire.cut()
        self._woken.set()

    def shutdown(self) -> None:
        """Leave the group, if there is one."""
        with self._lock:
            self._wire.forget()
        if not dist.is_initialized():
            # one that failed to form leaves its number behind, which is part of the store's keys
            dist.distributed_c10d._world.group_count = 0
            return
        if self._under_way is not None and not self._has_ended(self._under_way):
            # Its thread hangs in a send that gloo forgot; to destroy the group would wait for it.
            _ABANDONED.append((dist.distributed_c10d._get_default_group(), self._under_way))
        self._under_way = None
        dist.destroy_process_group()

    def _has_ended(self, work: dist.Work) -> bool:
        deadline = time.monotonic() + GRACE_S  # noqa: TID251 - a duration
        while not work.get_future().done():
            if time.monotonic() > deadline:  # noqa: TID251 - as above
                return False
            time.sleep(0.001)  # noqa: TID251 - torch's work has no wait that ends without raising
        return True

    def _finish(self, work: dist.Work) -> None:
        """Wait for a collective, or until the group is aborted.

        About one abort in fifty leaves gloo waiting for a send whose connection is closed (torch
        2.13), so nobody who can be told of an abort may wait in gloo itself.
        """
        self._under_way = work
        self._woken.clear()
        if self._is_aborted:
            raise RuntimeError("the group was aborted")
        if self._wire.is_queued:
            self._poll(work)
            return
        future = work.get_future()
        future.add_done_callback(lambda _: self._woken.set())
        self._woken.wait()
        if not future.done():
            raise RuntimeError("the group was aborted")
        self._under_way = None
        work.wait()  # raises what went wrong

    def _poll(self, work: dist.Work) -> None:
        """A device's future is done once the work is queued, so ask for the work itself."""
        while not work.is_completed():
            if self._is_aborted:
                raise RuntimeError("the group was aborted")
            time.sleep(0.0005)  # noqa: TID251 - the device wakes nobody
        if self._is_aborted:  # an aborted one counts as completed, with anything as its result
            raise RuntimeError("the group was aborted")
        self._under_way = None
        work.wait()

    @property
    def world(self) -> int:
        """How many ranks; 1 without a group."""
        return dist.get_world_size() if dist.is_initialized() else 1

    def all_reduce_mean(self, tensors: list[torch.Tensor], digest: int = 0) -> bool:
        """Replace tensors by their mean over the ranks.

        Args:
            tensors: Gradients of this rank, in the same order on all.
            digest: Checksum of what must be alike on all ranks, or 0; it travels with them as two
                numbers of 16 bits, which float32 holds exactly.

        Returns:
            Whether all of the mean is finite.

        Raises:
            RuntimeError: Aborted, or a peer was lost.
            Odd: The ranks' checksums differ; the tensors are as they were.
        """
        world, rank = self.world, dist.get_rank()
        stamps = torch.zeros(2 * world, device=self._wire.device)
        stamps[2 * rank], stamps[2 * rank + 1] = float(digest >> 16), float(digest & 0xFFFF)
        pieces = [t.detach().reshape(-1).to(self._wire.device, torch.float32) for t in tensors]
        flat = torch.cat([*pieces, stamps])
        self._finish(dist.all_reduce(flat, async_op=True))
        odd = _odd([tuple(pair) for pair in flat[-2 * world :].view(world, 2).tolist()])
        if odd is not None:
            raise odd
        flat /= world
        at = 0
        for tensor in tensors:
            piece = flat[at : at + tensor.numel()]
            tensor.copy_(piece.view(tensor.shape).to(tensor.dtype))
            at += tensor.numel()
        return math.isfinite(float(flat.sum()))

    def broadcast_parameters(self, tensors: list[torch.Tensor]) -> None:
        """Give every rank the first rank's values. Raises RuntimeError when aborted."""
        for tensor in tensors:
            copy = tensor.detach().to(self._wire.device).contiguous()
            self._finish(dist.broadcast(copy, 0, async_op=True))
            tensor.copy_(copy)

    def broadcast_bytes(self, body: bytes, source: int) -> bytes:
        """Give every rank the bytes of one. Raises RuntimeError when aborted."""
        device = self._wire.device
        size = torch.tensor([len(body)], device=device)
        self._finish(dist.broadcast(size, source, async_op=True))
        data = torch.empty(int(size), dtype=torch.uint8, device=device)
        if dist.get_rank() == source:
            data.copy_(torch.frombuffer(bytearray(body), dtype=torch.uint8))
        self._finish(dist.broadcast(data, source, async_op=True))
        return bytes(data.cpu().numpy().tobytes())

    def gather(self, piece: torch.Tensor) -> torch.Tensor:
        """The ranks' pieces, all of one size, in one row. Raises RuntimeError when aborted."""
        there = piece.to(self._wire.device)
        whole = torch.empty(piece.numel() * self.world, dtype=piece.dtype, device=there.device)
        self._finish(dist.all_gather_single(whole, there, async_op=True))
        return whole.to(piece.device)

    def barrier(self) -> None:
        """Wait until every rank is here. Raises RuntimeError when aborted."""
        self._finish(dist.all_reduce(torch.zeros(1, device=self._wire.device), async_op=True))


def is_torn(error: Exception) -> bool:
    """Whether an error is that of a collective which lost a peer."""
    return any(word in str(error) for word in _TORN)


def _odd(stamps: list[tuple[float, ...]]) -> ReplicaMismatch | None:
    counts = Counter(stamps).most_common()
    if len(counts) == 1:
        return None
    most, votes = counts[0]
    if 2 * votes <= len(stamps):
        return ReplicaMismatch(())
    return ReplicaMismatch(tuple(rank for rank, stamp in enumerate(stamps) if stamp != most))
