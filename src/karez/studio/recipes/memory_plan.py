"""How much device memory a training step of a decoder will need, reckoned before it starts."""

from dataclasses import dataclass
from typing import Any

import torch

from karez.core.errors import DeviceMemoryFull
from karez.core.units import show_bytes
from karez.runtime.device import DeviceMemory

MARGIN = 1.25
"""Allocators round up and fragment: what is reckoned is multiplied by this. The plan is then 1.05
to 1.6 times the peak that was measured on emulated NPUs, for 2 to 6 layers in 16 and 32 bits."""
_F32 = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """Bytes that a step needs: a fixed part, and one for each row of the batch."""

    fixed: int
    """Parameters, gradients and moments."""
    row: int
    """Activations of a row."""
    checkpointed_row: int
    """Activations of a row with gradient checkpointing."""

    def needed(self, rows: int, *, checkpointing: bool) -> int:
        """Return the bytes that a step with so many rows needs."""
        each = self.checkpointed_row if checkpointing else self.row
        return int(MARGIN * (self.fixed + rows * each))

    def most_rows(self, free: int, *, checkpointing: bool) -> int:
        """Return the most rows whose step fits in so many bytes; 0 if not one does."""
        each = self.checkpointed_row if checkpointing else self.row
        return max(0, int(free / MARGIN - self.fixed) // each)


def plan_memory(model: Any, *, tokens: int, answer_tokens: int) -> MemoryPlan:
    """Reckon the memory of a decoder's training step.

    A layer keeps 34 h + 5 a s bytes per token in 16 bits, for h hidden units, a heads and s tokens;
    with gradient checkpointing 2 h, and one layer at a time the rest. Source: Korthikanti et al.,
    "Reducing Activation Recomputation in Large Transformer Models", 2022, sections 4 and 5.
    Adapters and norms compute in 32 bits: a layer keeps its ten inputs once more in these.

    Args:
        model: A Hugging Face decoder, with or without an adapter.
        tokens: The longest row.
        answer_tokens: Positions of it that have a loss.
    """
    config, trained = model.config, [p for p in model.parameters() if p.requires_grad]
    width, layers = config.hidden_size, config.num_hidden_layers
    heads = getattr(config, "num_attention_heads", 0)  # none in a state space model
    item = _item_size(model)
    per_token = int((34 * width + 5 * heads * tokens) * item / 2) + 10 * width * _F32
    logits = answer_tokens * config.vocab_size * (item + 3 * _F32)
    fixed = sum(p.numel() * p.element_size() for p in model.parameters())
    fixed += sum(p.numel() * 3 * max(p.element_size(), _F32) for p in trained)
    return MemoryPlan(
        fixed=fixed,
        row=layers * tokens * per_token + logits,
        checkpointed_row=tokens * (layers * width * item + per_token) + logits,
    )


def choose_checkpointing(
    plan: MemoryPlan, *, rows: int, wanted: str, device: torch.device, memory: DeviceMemory | None
) -> bool:
    """Decide whether activations are recomputed instead of kept.

    Args:
        plan: What a step needs.
        rows: Rows of this rank's part of the batch.
        wanted: `on`, `off`, or `auto`: only if the step does not fit otherwise.
        device: Where the step is computed.
        memory: Its memory; None where it is the host's.

    Raises:
        DeviceMemoryFull: The step does not fit; the error says how many rows do.
    """
    if memory is None:
        return wanted == "on"
    room = memory.free + memory.allocated  # the model is there already, and part of the plan
    choices = {"on": (True,), "off": (False,), "auto": (False, True)}[wanted]
    for checkpointing in choices:
        if plan.needed(rows, checkpointing=checkpointing) <= room:
            return checkpointing
    needed = plan.needed(rows, checkpointing=choices[-1]) - memory.allocated
    most = plan.most_rows(room, checkpointing=choices[-1])
    fix = f"Up to {most} rows a rank fit: a smaller batch, or more workers."
    raise DeviceMemoryFull(
        device=str(device),
        wanted=f"a step of {rows} rows ({show_bytes(needed)} beside the model)",
        free=show_bytes(memory.free),
        total=show_bytes(memory.total),
        fix=fix if most else "The model itself does not fit: take a larger device.",
    )


def _item_size(model: Any) -> int:
    """Bytes of an activation: those of the frozen weights, which are most of them."""
    return int(next(model.parameters()).element_size())
