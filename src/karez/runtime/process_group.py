"""A torch process group that can be aborted and formed again, over any collective backend."""

import datetime
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
import torch.distributed as dist

from karez.runtime.collective_backends import CollectiveBackend
from karez.runtime.gloo_backend import GlooBackend
from karez.runtime.host_clock import monotonic_s, pause
from karez.runtime.membership import Membership, meet_members

_PEER_LOST = (
    "gloo",
    "Connection",
    "closed by peer",
    "generation is over",
    "Broken pipe",
    "aborted",
)
"""Parts of the messages of a collective that lost a peer (torch 2.13)."""
GRACE_S = 0.02
"""How long a broken collective may take to end by itself."""
_ABANDONED: list[tuple[dist.ProcessGroup, list[dist.Work]]] = []
"""Groups with collectives that never end: referenced here, since they cannot be destroyed."""
_TURN = datetime.timedelta(milliseconds=20)
"""How long a thread waits in gloo before it looks for an abort that gloo has not noticed."""
_NO_LIMIT = datetime.timedelta(days=2)
"""Collectives have no deadline of their own: the job controller ends a generation, not a timer."""


class ProcessGroup:
    """A process group that is formed once per generation. `abort` may come from another thread."""

    def __init__(self, backend: CollectiveBackend | None = None) -> None:
        """Start without a group; the backend is gloo unless another is given."""
        self._backend: CollectiveBackend = backend or GlooBackend()
        self._lock = threading.Lock()
        self._is_aborted = False
        self.has_other_waits = False
        """Whether code waits for collectives without this group, as a sharded model does."""
        self._under_way: list[dist.Work] = []

    def arm(self) -> None:
        """Reset the abort flag: an abort from here on is meant for the group formed next."""
        with self._lock:
            self._is_aborted = False

    def rebuild(self, member: Membership, *, within_s: float = 20.0) -> None:
        """Form the group of a generation; `arm` comes first.

        Raises:
            RuntimeError: The group was aborted, or a member did not arrive or died.
        """
        self.shutdown()
        with self._lock:
            self._raise_if_aborted()
            self._backend.begin_forming()
        try:
            self._form(member, within_s)
            with self._lock:
                self._backend.mark_formed()
        finally:
            with self._lock:
                self._backend.end_forming()
        dist.distributed_c10d._set_pg_timeout(_NO_LIMIT)

    def _form(self, member: Membership, within_s: float) -> None:
        store: dist.Store = dist.HashStore()
        if member.store:
            store = meet_members(member, within_s=within_s, is_aborted=lambda: self._is_aborted)
        self._backend.begin_forming()
        dist.init_process_group(
            self._backend.backend,
            store=dist.PrefixStore(f"g{member.generation}", store),
            rank=member.rank,
            world_size=member.world,
            timeout=member.forming_limit,
        )

    def release(self) -> None:
        """Have the device compute again where no group is formed."""
        with self._lock:
            self._backend.begin_forming()
            self._backend.end_forming()

    @contextmanager
    def extended(self) -> Iterator[None]:
        """Have aborts reach the groups too that are formed meanwhile, such as those of a mesh."""
        with self._lock:
            self._raise_if_aborted()
            self._backend.extend()
        try:
            yield
            with self._lock:
                self._backend.mark_formed()
        finally:
            with self._lock:
                self._backend.end_forming()

    def abort(self) -> None:
        """Make every collective under way fail within milliseconds.

        Where that stops the whole device, and only this group waits for collectives, the training
        thread does it itself in `shutdown`: the user's code may be computing on the device.
        """
        with self._lock:
            self._is_aborted = True
            if self.stops_device or not self._backend.stops_device:
                self._backend.abort()

    @property
    def is_aborted(self) -> bool:
        """Whether the group was aborted: then its device may be stopped."""
        return self._is_aborted

    def shutdown(self) -> None:
        """Leave the group, if there is one."""
        with self._lock:
            if self._is_aborted:
                self._backend.abort()
            self._backend.leave()
        if not dist.is_initialized():
            # one that failed to form leaves its number behind, which is part of the store's keys
            dist.distributed_c10d._world.group_count = 0
            return
        stuck = [work for work in self._under_way if not _ends_soon(work)]
        if stuck:
            # Their thread hangs in a send that gloo forgot; to destroy the group would wait for it.
            _ABANDONED.append((dist.distributed_c10d._get_default_group(), stuck))
        self._under_way = []
        dist.destroy_process_group()

    @property
    def stops_device(self) -> bool:
        """Whether an abort ends at once all work of the device, copies to the host too."""
        return self._backend.stops_device and self.has_other_waits

    @property
    def world(self) -> int:
        """Number of ranks; 1 without a group."""
        return dist.get_world_size() if dist.is_initialized() else 1

    @property
    def rank(self) -> int:
        """Number of this rank in the group; 0 without a group."""
        return dist.get_rank() if dist.is_initialized() else 0

    def travels_from(self, device: torch.device) -> torch.device:
        """Return the device from which tensors on `device` travel."""
        return device if device.type == self._backend.device.type else self._backend.device

    def start_all_reduce(self, flat: torch.Tensor) -> dist.Work:
        """Begin to sum a tensor over the ranks; `wait` waits for the end.

        Raises:
            RuntimeError: The group was aborted, or a peer was lost.
        """
        self._raise_if_aborted()
        work: dist.Work = dist.all_reduce(flat, async_op=True)
        self._under_way.append(work)
        return work

    def broadcast_parameters(self, tensors: list[torch.Tensor]) -> None:
        """Give every rank the first rank's values. Raises RuntimeError when aborted."""
        for tensor in tensors:
            copy = tensor.detach().to(self._backend.device).contiguous()
            self._finish(dist.broadcast(copy, 0, async_op=True))
            tensor.copy_(copy)

    def broadcast_bytes(self, body: bytes, source: int) -> bytes:
        """Give every rank the bytes of rank `source`. Raises RuntimeError when aborted."""
        device = self._backend.device
        size = torch.tensor([len(body)], device=device)
        self._finish(dist.broadcast(size, source, async_op=True))
        data = torch.empty(int(size), dtype=torch.uint8, device=device)
        if dist.get_rank() == source:
            data.copy_(torch.frombuffer(bytearray(body), dtype=torch.uint8))
        self._finish(dist.broadcast(data, source, async_op=True))
        return bytes(data.cpu().numpy().tobytes())

    def gather(self, piece: torch.Tensor) -> torch.Tensor:
        """Gather the ranks' pieces, all of one size, in one row. Raises RuntimeError on abort."""
        sent = piece.to(self._backend.device)
        row = torch.empty(piece.numel() * self.world, dtype=piece.dtype, device=sent.device)
        self._finish(dist.all_gather_single(row, sent, async_op=True))
        return row.to(piece.device)

    def barrier(self) -> None:
        """Wait until every rank is here. Raises RuntimeError when aborted."""
        self._finish(dist.all_reduce(torch.zeros(1, device=self._backend.device), async_op=True))

    def _finish(self, work: dist.Work) -> None:
        self._under_way.append(work)
        self.wait(work)

    def wait(self, work: dist.Work) -> None:
        """Wait for a collective, or until the group is aborted.

        Raises:
            RuntimeError: The group was aborted, or a peer was lost.

        About one abort in fifty leaves gloo waiting for a send whose connection is closed (torch
        2.13), so a thread that an abort must reach waits in gloo for moments only.
        """
        self._raise_if_aborted()
        if self._backend.is_queued:
            self._poll(work)
        else:
            self._wait_in_turns(work)
        self._under_way.remove(work)

    def _wait_in_turns(self, work: dist.Work) -> None:
        while not work.is_completed():
            self._raise_if_aborted()
            with suppress(RuntimeError):  # the turn has ended, or the work has failed
                work.wait(_TURN)
        work.wait()  # raises what went wrong

    def _poll(self, work: dist.Work) -> None:
        """Wait for the work itself: a device's future is done once the work is queued."""
        while not work.is_completed():
            self._raise_if_aborted()
            pause(0.0005)
        self._raise_if_aborted()  # an aborted one counts as completed, with anything as its result
        work.wait()  # raises what went wrong

    def _raise_if_aborted(self) -> None:
        if self._is_aborted:
            raise RuntimeError("the group was aborted")


def lost_a_peer(error: Exception) -> bool:
    """Whether an error is that of a collective which lost a peer."""
    return any(part in str(error) for part in _PEER_LOST)


def _ends_soon(work: dist.Work) -> bool:
    deadline_s = monotonic_s() + GRACE_S
    while not work.get_future().done():
        if monotonic_s() > deadline_s:
            return False
        pause(0.001)  # the work has no wait that ends without raising
    return True
