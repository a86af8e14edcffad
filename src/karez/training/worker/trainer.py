"""Old name of `karez.runtime.trainer`, for one release."""

import warnings

from karez.runtime.trainer import KarezCallback, attach

__all__ = ["KarezCallback", "attach"]

warnings.warn(
    "karez.training.worker.trainer is karez.runtime.trainer now", DeprecationWarning, stacklevel=2
)
