"""Comparison of replicas by checksum: ranks that must hold the same parameters, and do not."""

from collections import Counter
from collections.abc import Sequence

import torch
import xxhash

from karez.runtime.sharded_tensors import local_of
from karez.runtime.training_state import tensor_bytes

DIGEST_BYTES = 64 << 20
"""Replicas are compared after every snapshot up to this size of the model, after every second up to
twice that, and so on: XXH3 goes through 64 MiB in about 5 ms, at the speed of the memory."""


class DigestMismatch(Exception):
    """Replicas that must be alike differ."""

    def __init__(self, ranks: tuple[int, ...]) -> None:
        """`ranks` differ from the majority; none: there is no majority."""
        super().__init__(f"ranks {ranks} differ")
        self.ranks = ranks


def digest_of(model: torch.nn.Module) -> int:
    """Return 32 bits of XXH3 of the trained parameters.

    Buffers are left out: running means differ from rank to rank.
    """
    checksum = xxhash.xxh3_64()
    for parameter in model.parameters():
        if parameter.requires_grad:
            checksum.update(tensor_bytes(parameter.data))
    return checksum.intdigest() & 0xFFFFFFFF


def digest_every(model: torch.nn.Module) -> int:
    """Return the number of snapshots between two comparisons of replicas."""
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    return int(1 + size // DIGEST_BYTES)


def find_mismatch(digests: Sequence[int]) -> DigestMismatch | None:
    """Find the ranks whose digests differ from the majority's."""
    counts = Counter(digests).most_common()
    if len(counts) == 1:
        return None
    majority, votes = counts[0]
    if 2 * votes <= len(digests):
        return DigestMismatch(())
    return DigestMismatch(tuple(n for n, digest in enumerate(digests) if digest != majority))


def inject_bit_error(model: torch.nn.Module) -> None:
    """Change the sign of one parameter, as a faulty memory cell would. For fault injection."""
    parameter = next(p for p in model.parameters() if p.requires_grad)
    flat = local_of(parameter.data).reshape(-1)
    if flat.numel():
        flat[0] = -flat[0] if float(flat[0]) else 1.0
