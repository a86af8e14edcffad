"""Old name of `karez.runtime.shards`, for one release."""

import warnings

from karez.runtime.shards import ShardedOptimizer

__all__ = ["ShardedOptimizer"]

warnings.warn(
    "karez.training.worker.shards is karez.runtime.shards now", DeprecationWarning, stacklevel=2
)
