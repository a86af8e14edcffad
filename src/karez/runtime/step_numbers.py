"""Numbers that each rank sends with its gradients: its digest, and its wishes for snapshots."""

from dataclasses import dataclass

import torch

NUMBERS = 6
"""Numbers of one rank: a digest in two halves of 16 bits, which float32 holds exactly, a cadence,
whether a checkpoint is wanted, and a step in two halves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepNumbers:
    """What one rank says of itself in a step."""

    digest: int = 0
    """32 bits of a checksum of its parameters; 0: not compared in this step."""
    snapshot_every: int = 1
    """Steps between two snapshots that would suit it."""
    wants_checkpoint: bool = False
    """Whether it was asked to store a checkpoint: then all ranks store this step."""
    stops_after: int = 0
    """The step after which the training should end; 0: it does not say."""


def write_numbers(row: torch.Tensor, rank: int, own: StepNumbers) -> None:
    """Write a rank's numbers so that a sum over the ranks leaves each rank's readable.

    Shapes: (NUMBERS * world,) float32; those of the other ranks become zero.
    """
    row.zero_()
    digest, step = own.digest, own.stops_after
    flags = (own.snapshot_every, own.wants_checkpoint)
    values = (digest >> 16, digest & 0xFFFF, *flags, step >> 16, step & 0xFFFF)
    row[NUMBERS * rank : NUMBERS * (rank + 1)] = torch.tensor(values, dtype=torch.float32)


def read_numbers(row: torch.Tensor) -> list[StepNumbers]:
    """Read all ranks' numbers from a sum of what `write_numbers` wrote."""
    return [
        StepNumbers(
            digest=(int(high) << 16) + int(low),
            snapshot_every=int(every),
            wants_checkpoint=bool(wants),
            stops_after=(int(step_high) << 16) + int(step_low),
        )
        for high, low, every, wants, step_high, step_low in row.view(-1, NUMBERS).tolist()
    ]
