"""Imports what ranks need, once per node in its fork server, before they fork. Starts no thread.

It opens no accelerator: what a process holds of one does not survive a fork.
"""

import importlib
import importlib.util
import sys

from karez.core import environment
from karez.runtime.process_environment import read

WARM = (
    "torch",
    "torch.distributed",
    "torch._dynamo",  # the first optimizer imports it: 1 s
    "numpy",
    "safetensors.torch",
    "transformers",
    "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama",
    "transformers.generation.utils",
    "peft",
    "karez.runtime.session",
)

for _name in WARM:
    if importlib.util.find_spec(_name.partition(".")[0]) is not None:
        importlib.import_module(_name)


def may_compute() -> bool:
    """Whether torch may compute before the fork.

    Torch's first backward counts the devices for good, with accelerators hidden from this process:
    a child could not train on one.
    """
    return not read(environment.ACCELERATORS)


def after_fork() -> None:
    """Let this process find the accelerators that it was granted."""
    if read(environment.EMUNPU):
        importlib.import_module("torch")._import_device_backends()
    if read(environment.DEVICE) not in ("", "cpu"):
        _forget_what_was_available()


def _forget_what_was_available() -> None:
    """Have libraries look again for devices, which were hidden when they were imported."""
    for name in ("transformers.utils.import_utils", "accelerate.utils.imports"):
        for function in vars(sys.modules[name]).values() if name in sys.modules else ():
            if hasattr(function, "cache_clear"):
                function.cache_clear()
