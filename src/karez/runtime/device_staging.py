"""Copies of device tensors on their way to a snapshot, beside the training.

The copies go to pinned memory on a stream of their own, so the next forward and backward need not
wait for them. Two things do: the next change of the tensors, on the device, and whoever reads the
copies, on the host.
"""

from typing import Any

import torch

from karez.runtime.device import device_module


class StagedCopy:
    """Copies that are under way."""

    def __init__(self, module: Any, device: torch.device, event: Any) -> None:
        """Follow copies that end with an event of a device's module, such as torch.npu."""
        self._module, self._device, self._event = module, device, event
        self._is_void = False

    def hold_device(self) -> None:
        """Have what the current stream does next, such as an optimizer's step, come after them."""
        self._module.current_stream(self._device).wait_event(self._event)

    def finish(self) -> bool:
        """Wait for the copies on the host; False: they were cancelled.

        Raises:
            RuntimeError: The device failed.
        """
        try:
            self._event.synchronize()
        except RuntimeError:
            if not self._is_void:
                raise
        return not self._is_void

    def use_device(self) -> None:
        """Have this thread use the device: on some, a thread must say so."""
        self._module.set_device(self._device)

    def cancel(self) -> None:
        """Mark the copies as useless unless they are complete: the device will be stopped."""
        self._is_void = not self._event.query()


class DeviceStaging:
    """Pinned memory for the copies of one device's tensors; it has those of one step at a time."""

    def __init__(self, device: torch.device) -> None:
        """Make the stream; memory is taken as it is needed, and kept."""
        self._device, self._module = device, device_module(device)
        self._stream = self._module.Stream(device=device)
        self._buffers: list[torch.Tensor] = []
        self._used = 0

    def begin(self) -> None:
        """Begin the copies of a step; those of the one before have been read."""
        self._used = 0
        self._stream.wait_stream(self._module.current_stream(self._device))

    def bytes_of(self, tensor: torch.Tensor) -> memoryview:
        """Begin to copy a tensor; returns the bytes of the copy, which come later.

        Those of a tensor on the host are there at once.
        """
        tensor = tensor.detach()
        buffer = self._buffer(tensor.numel() * tensor.element_size(), is_pinned=not tensor.is_cpu)
        place = buffer.view(tensor.dtype).view(tensor.shape)
        if tensor.is_cpu:
            place.copy_(tensor)
        else:
            with self._module.stream(self._stream):
                place.copy_(tensor, non_blocking=True)
            tensor.record_stream(self._stream)
        return buffer.numpy().data

    def end(self) -> StagedCopy:
        """End the copies of a step."""
        return StagedCopy(self._module, self._device, self._stream.record_event())

    def _buffer(self, size: int, *, is_pinned: bool) -> torch.Tensor:
        number, self._used = self._used, self._used + 1
        if number == len(self._buffers):
            self._buffers.append(torch.empty(0, dtype=torch.uint8))
        if self._buffers[number].numel() != size:
            fresh = torch.empty(size, dtype=torch.uint8)
            self._buffers[number] = fresh.pin_memory() if is_pinned and size else fresh
        return self._buffers[number]
