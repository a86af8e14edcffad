"""NCCL and HCCL as abortable backends.

Both follow their documentation. HCCL's runs in tests on the emulated NPU; neither was run on a
real device.
"""

import os
from typing import Any

import torch
import torch.distributed as dist
from typing_extensions import override

from karez.runtime.collective_backends import CollectiveBackend


class NcclBackend(CollectiveBackend):
    """NCCL, aborted by `ncclCommAbort` of all communicators at once, through torch.

    The watchdog must leave errors alone (TORCH_NCCL_ASYNC_ERROR_HANDLING=0), or it ends the process
    (torch 2.13, `_abort_process_group`).
    """

    backend = "nccl"
    is_queued, stops_device = True, False

    def __init__(self, device: torch.device) -> None:
        """Use this device."""
        self._device = device
        self._is_formed = False
        os.environ["TORCH_NCCL_ASYNC_ERROR_HANDLING"] = "0"  # noqa: TID251 - read by torch's C++

    @property
    @override
    def device(self) -> torch.device:
        return self._device

    @override
    def begin_forming(self) -> None:
        pass

    @override
    def mark_formed(self) -> None:
        self._is_formed = True

    @override
    def extend(self) -> None:
        """Nothing is to be noted: torch aborts the communicators of all groups."""

    @override
    def end_forming(self) -> None:
        pass

    @override
    def abort(self) -> None:
        """Abort a group that has been formed; one that is still forming ends by its own limit."""
        if self._is_formed:
            self._is_formed = False
            dist.distributed_c10d._abort_process_group()

    @override
    def leave(self) -> None:
        self._is_formed = False


class HcclBackend(CollectiveBackend):
    """HCCL, aborted by stopping the device, which is restarted before the next group.

    `stop_device` clears what was queued and makes what follows fail; `restart_device` ends that
    (torch_npu 7.2 documentation, which calls both reserved). Memory keeps its contents, but what a
    task was writing is undefined: the caller restores its state, as after any fault.
    """

    backend = "hccl"
    is_queued = stops_device = True

    def __init__(self, npu: Any, device: torch.device) -> None:
        """Use this device; `npu` is `torch_npu.npu`."""
        self._npu, self._device = npu, device
        self._is_formed = self._is_stopped = False

    @property
    @override
    def device(self) -> torch.device:
        return self._device

    @override
    def begin_forming(self) -> None:
        if self._is_stopped:
            self._npu.restart_device(self._device.index)
            self._is_stopped = False

    @override
    def mark_formed(self) -> None:
        self._is_formed = True

    @override
    def extend(self) -> None:
        """Nothing is to be noted: a stopped device fails the collectives of all groups."""

    @override
    def end_forming(self) -> None:
        pass

    @override
    def abort(self) -> None:
        if not self._is_formed:
            return
        self._is_formed = False
        # it answers 1 where it could not stop: then the rank stays stuck, and is replaced
        self._is_stopped = not self._npu.stop_device(self._device.index)

    @override
    def leave(self) -> None:
        self._is_formed = False
