"""Which modules of a model get a LoRA adapter, and whether merging it kept what it learned."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from karez.core.errors import BrokenArtifact

_MAMBA = ("out_proj", "conv1d")
_MAMBA_1 = (*_MAMBA, "dt_proj")
EXCLUDED: Mapping[str, tuple[str, ...]] = {
    "deepseek_v4": ("o_a_proj",),
    "falcon_h1": _MAMBA,
    "falcon_mamba": _MAMBA_1,
    "jamba": ("dt_proj",),
    "llama4": ("router",),
    "llama4_text": ("router",),
    "longcat_flash": ("classifier",),
    "mamba": _MAMBA_1,
    "mamba2": _MAMBA,
    "nemotron_h": _MAMBA,
    "neomme": ("embedding_projection", "unembedding_projection"),
    "phimoe": ("router",),
}
"""Model type -> linear modules that cannot carry an adapter: fused kernels read the weights of
Mamba's mixers and others (peft refuses some; an adapter on the rest does nothing until it is
merged), a router answers with several tensors, and a grouped linear reshapes its input.
tests/studio/test_lora_targets.py trains one tiny model of each of the first, and the matrix of
architectures merges one of each."""
SHARE = 0.1
"""Part of what the adapter changes that merging may lose."""
ROUNDINGS = 8
"""Rounding errors of the weights' type, as a part of the output, that are no loss."""


def excluded_modules(model: Any) -> list[str] | None:
    """Names of modules of a model that get no adapter, as peft's `exclude_modules`."""
    names = EXCLUDED.get(model.config.model_type, ())
    present = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    return [name for name in names if name in present] or None


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterOutput:
    """Logits of some tokens: what the adapter makes of them, and what its base did."""

    adapted_BLV: torch.Tensor
    base_BLV: torch.Tensor


@torch.inference_mode()
def adapter_output(model: Any, tokens_BL: torch.Tensor, mask_BL: torch.Tensor) -> AdapterOutput:
    """Run a peft model with its adapter and without."""
    model.eval()
    adapted_BLV = model(input_ids=tokens_BL, attention_mask=mask_BL).logits.float()
    with model.disable_adapter():
        base_BLV = model(input_ids=tokens_BL, attention_mask=mask_BL).logits.float()
    return AdapterOutput(adapted_BLV=adapted_BLV, base_BLV=base_BLV)


@torch.inference_mode()
def check_merged(
    model: Any, before: AdapterOutput, tokens_BL: torch.Tensor, mask_BL: torch.Tensor
) -> float:
    """Check that a merged model gives what its adapter gave; returns the share that was lost.

    Raises:
        BrokenArtifact: It does not: the merged model must not be used.
    """
    merged_BLV = model(input_ids=tokens_BL, attention_mask=mask_BL).logits.float()
    seen = mask_BL.bool()
    gap = _distance(merged_BLV[seen], before.adapted_BLV[seen])
    effect = _distance(before.adapted_BLV[seen], before.base_BLV[seen])
    dtype = next(model.parameters()).dtype
    noise = ROUNDINGS * torch.finfo(dtype).eps * float(before.adapted_BLV[seen].abs().mean())
    if not gap <= SHARE * effect + noise:  # a NaN is none either
        raise BrokenArtifact(
            name="the merged model",
            problem=f"its outputs differ from the adapter's by {gap:.3g}, where the adapter "
            f"itself changed {effect:.3g}; the adapter alone can be used",
        )
    return gap / effect if effect else 0.0


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().mean())
