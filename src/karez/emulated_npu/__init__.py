"""An emulated `npu` device for torch: it shows what a program does, not how an Ascend computes.

Device memory is the host's. Each operator that torch sends to the device is run by the CPU's kernel
on the same bytes, so results are the CPU's: what it proves is that a migrated program runs on a
device called npu, moves its data there, and computes the same. It says nothing about the numerics
or the speed of a real NPU.

It is switched on by KAREZ_EMUNPU=1, which torch's loading of backends reads, or by `install()`.
"""

from karez.emulated_npu.autoload import autoload, install

__all__ = ["autoload", "install"]
