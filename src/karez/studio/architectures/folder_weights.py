"""Reads the weights of a model's folder into its class, and says whether they are all there."""

from collections.abc import Collection
from pathlib import Path

import torch

from karez.studio.architectures.attempts import Failed, attempt
from karez.studio.architectures.model_types import ModelType
from karez.studio.architectures.rows import OK

_SHOWN = 3


def check_weights(kind: ModelType, folder: Path) -> str:
    """Load the model as it was saved, into the host's memory."""
    _, cls = kind.classes()
    loaded = attempt(
        lambda: cls.from_pretrained(
            folder,
            dtype="auto",
            output_loading_info=True,
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # they are told below, with all others
        )
    )
    if isinstance(loaded, Failed):
        return loaded.reason
    model, found = loaded
    problems = [
        _names("missing", found["missing_keys"]),
        _names("of another shape", {name for name, *_ in found["mismatched_keys"]}),
        _names("no number", _not_finite(model)),
    ]
    return "; ".join(problem for problem in problems if problem) or OK


def _not_finite(model: torch.nn.Module) -> list[str]:
    return [
        name
        for name, weight in model.named_parameters()
        if weight.is_floating_point() and not torch.isfinite(weight).all()
    ]


def _names(what: str, names: Collection[str]) -> str:
    if not names:
        return ""
    more = ", ..." if len(names) > _SHOWN else ""
    return f"{len(names)} weights are {what}: {', '.join(sorted(names)[:_SHOWN])}{more}"
