"""Installs the emulated device when torch is imported, if KAREZ_EMUNPU=1."""

import importlib.util
import sys

from karez.core import environment
from karez.runtime.process_environment import read


def autoload() -> None:
    """Entry point of the group torch.backends."""
    if read(environment.EMUNPU) == "1":
        install()


def install() -> None:
    """Register the device `npu` in this process; once. Says on stderr what it is.

    Raises:
        RuntimeError: torch_npu is installed; both cannot work in one process.
    """
    from karez.emulated_npu import device  # noqa: PLC0415 - torch is still being imported

    if device.is_installed():
        return
    if importlib.util.find_spec("torch_npu") is not None:
        raise RuntimeError("torch_npu is installed: use the real device, or another environment")
    if read("RANK", "0") == "0":  # once for a gang
        sys.stderr.write(
            "karez: npu is emulated on this CPU: it shows function, not an Ascend's numerics or "
            "speed\n"
        )
    device.install()
