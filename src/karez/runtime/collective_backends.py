"""How collectives of each backend are cut off in mid-flight, so that their rank can go on.

Gloo was run; NCCL's and HCCL's wires follow their documentation and were not run on a device.
"""

import os
import socket
from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol

import torch
import torch.distributed as dist

from karez.core.errors import BadRequest


class CollectiveBackend(Protocol):
    """What differs between backends. A group calls all but `begin` under its lock."""

    backend: str
    """As torch.distributed calls it."""
    is_queued: bool
    """Whether a collective's future is done before the collective is."""

    @property
    def device(self) -> torch.device:
        """Where tensors must be to travel."""
        ...

    def begin(self) -> None:
        """A group is about to be formed: said before its rendezvous, and again behind it.

        Raises RuntimeError if the device does not come back.
        """
        ...

    def formed(self) -> None:
        """The group is there."""
        ...

    def settle(self) -> None:
        """Forming is over, one way or the other."""
        ...

    def cut(self) -> None:
        """Make what is under way fail. Raises nothing: who does not come free is replaced."""
        ...

    def forget(self) -> None:
        """The group is being left."""
        ...


class GlooBackend:
    """Gloo has no abort of its own, but ends at once when its connected sockets are shut.

    Nothing in the API tells which these are (torch 2.13), so the sockets that forming a group
    opened are remembered.
    """

    backend = "gloo"
    device = torch.device("cpu")
    is_queued = False

    def __init__(self) -> None:
        """No group yet."""
        self._sockets: dict[int, str] = {}
        self._before: dict[int, str] | None = None
        """The sockets there were before anything was opened for the group that is being formed."""
        self._base: dict[int, str] = {}
        """Those there were once its rendezvous stood, which outlives the group."""

    def begin(self) -> None:
        """See Wire."""
        self._base = _open_sockets()
        self._before = self._base if self._before is None else self._before

    def formed(self) -> None:
        """See Wire."""
        self._sockets = _since(self._base)

    def settle(self) -> None:
        """See Wire."""
        self._before = None

    def cut(self) -> None:
        """See Wire; a group that is being formed, with one who will not come, is cut too."""
        sockets = self._sockets if self._before is None else _since(self._before)
        for fd, name in sockets.items():
            _shut(fd, name)

    def forget(self) -> None:
        """See Wire."""
        self._sockets = {}


class NcclBackend:
    """NCCL: `ncclCommAbort` of all communicators at once, through torch.

    The watchdog must leave errors alone (TORCH_NCCL_ASYNC_ERROR_HANDLING=0), or it ends the process
    (torch 2.13, `_abort_process_group`).
    """

    backend = "nccl"
    is_queued = True

    def __init__(self, index: int = 0) -> None:
        """The device of this process."""
        self.device = torch.device("cuda", index)
        self._is_formed = False
        os.environ["TORCH_NCCL_ASYNC_ERROR_HANDLING"] = "0"  # noqa: TID251 - read by torch's C++

    def begin(self) -> None:
        """See Wire."""

    def formed(self) -> None:
        """See Wire."""
        self._is_formed = True

    def settle(self) -> None:
        """See Wire."""

    def cut(self) -> None:
        """See Wire. A group that is still forming is ended by its own limit."""
        if self._is_formed:
            self._is_formed = False
            dist.distributed_c10d._abort_process_group()

    def forget(self) -> None:
        """See Wire."""
        self._is_formed = False


class HcclBackend:
    """HCCL: the device's tasks are ended and the device is taken up again before the next group.

    `stop_device` clears what was queued and makes what follows fail; `restart_device` ends that
    (torch_npu 7.2 documentation, which calls both reserved). Memory keeps its contents, but what a
    task was writing is undefined: the caller restores its state, as after any fault.
    """

    backend = "hccl"
    is_queued = True

    def __init__(self, npu: Any, index: int = 0) -> None:
        """`npu` is `torch_npu.npu`; `index` the device of this process."""
        self._npu, self._index = npu, index
        self._is_formed = self._is_stopped = False

    @property
    def device(self) -> torch.device:
        """See Wire."""
        return torch.device("npu", self._index)

    def begin(self) -> None:
        """See Wire."""
        if self._is_stopped:
            self._npu.restart_device(self._index)
            self._is_stopped = False

    def formed(self) -> None:
        """See Wire."""
        self._is_formed = True

    def settle(self) -> None:
        """See Wire."""

    def cut(self) -> None:
        """See Wire."""
        if not self._is_formed:
            return
        self._is_formed = False
        # it answers 1 where it could not: then the rank does not come free, and is replaced
        self._is_stopped = not self._npu.stop_device(self._index)

    def forget(self) -> None:
        """See Wire."""
        self._is_formed = False


def _hccl() -> CollectiveBackend:
    try:
        torch_npu = import_module("torch_npu")
    except ImportError as error:
        raise BadRequest(
            problem="hccl needs torch_npu, which is not installed",
            fix='Install it for your CANN version, or say collectives="gloo".',
        ) from error
    return HcclBackend(torch_npu.npu)


def _nccl() -> CollectiveBackend:
    if not (torch.cuda.is_available() and dist.is_nccl_available()):
        raise BadRequest(
            problem="nccl needs a CUDA device and a torch built with NCCL",
            fix='Take a node that has both, or say collectives="gloo".',
        )
    return NcclBackend()


_BACKENDS: dict[str, Callable[[], CollectiveBackend]] = {
    "gloo": GlooBackend,
    "nccl": _nccl,
    "hccl": _hccl,
}


def collective_backend(name: str) -> CollectiveBackend:
    """The wire of a backend. Raises BadRequest if it is unknown or cannot be had here."""
    if name not in _BACKENDS:
        raise BadRequest(
            problem=f"there are no collectives called {name!r}",
            fix=f"One of {', '.join(_BACKENDS)}.",
        )
    return _BACKENDS[name]()


def _since(before: dict[int, str]) -> dict[int, str]:
    return {fd: name for fd, name in _open_sockets().items() if before.get(fd) != name}


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
