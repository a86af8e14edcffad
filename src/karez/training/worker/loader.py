"""Old name of `karez.runtime.loader`, for one release."""

import warnings

from karez.runtime.loader import ShuffledBatches, StepLoader

__all__ = ["ShuffledBatches", "StepLoader"]

warnings.warn(
    "karez.training.worker.loader is karez.runtime.loader now", DeprecationWarning, stacklevel=2
)
