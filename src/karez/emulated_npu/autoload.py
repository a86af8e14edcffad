"""What torch calls when it is imported: nothing happens unless the emulation was asked for."""

import importlib.util
import os
import sys

from karez.core import environment


def autoload() -> None:
    """Entry point of the group torch.backends."""
    if os.environ.get(environment.EMUNPU) == "1":  # noqa: TID251 - how a child process is told
        install()


def install() -> None:
    """Register the device `npu` in this process; once. Says on stderr what it is.

    Raises:
        RuntimeError: A real torch_npu is here; the two cannot live in one process.
    """
    from karez.emulated_npu import device  # noqa: PLC0415 - torch is still being imported

    if device.is_installed():
        return
    if importlib.util.find_spec("torch_npu") is not None:
        raise RuntimeError("torch_npu is installed: use the real device, or another environment")
    if os.environ.get("RANK", "0") == "0":  # noqa: TID251 - once for a gang
        sys.stderr.write(
            "karez: npu is emulated on this CPU: it shows function, not an Ascend's numerics or "
            "speed\n"
        )
    device.install()
