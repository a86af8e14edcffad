"""Builds a tiny model of a type, with inputs that it takes."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from karez.studio.architectures.attempts import Failed, attempt
from karez.studio.architectures.example_inputs import candidates
from karez.studio.architectures.model_types import ModelType
from karez.studio.architectures.rows import OK, Check
from karez.studio.architectures.tiny_config import Scale, tiny_fields
from karez.studio.architectures.tiny_sizes import OVERRIDES

SEED = 0
_STEPS = (Check.CONFIG, Check.INIT, Check.FORWARD)
_MOST_PARAMETERS = {Scale.BY_NAME: 80e6, Scale.BY_FACTOR: 80e6, Scale.SHALLOW: 260e6}
_MAIN_OUTPUTS = (
    "logits",
    "last_hidden_state",
    "logits_per_image",
    "pred_logits",
    "prediction_logits",
    "predicted_depth",
    "waveform",
    "spectrogram",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyModel:
    """A model with random weights, in float32 and in evaluation mode."""

    family: str
    model: Any
    inputs: Mapping[str, torch.Tensor]

    @property
    def parameters(self) -> int:
        """Number of its parameters."""
        return sum(weight.numel() for weight in self.model.parameters())


@dataclass(frozen=True, slots=True, kw_only=True)
class NotBuilt:
    """No scale gave a model that runs."""

    reached: Mapping[Check, str]
    """What the scale that came furthest reached, and why it went no further."""


def build(kind: ModelType, config: Any = None) -> TinyModel | NotBuilt:
    """Build a tiny model: of `config`, or of the defaults of the type. Each scale is tried."""
    furthest: dict[Check, str] = {}
    for scale in Scale:
        reached: dict[Check, str] = {}
        built = _build(kind, config, scale, reached)
        if isinstance(built, TinyModel):
            return built
        check = next(check for check in _STEPS if check not in reached)
        reached[check] = built.reason
        if len(reached) > len(furthest):
            furthest = reached
    return NotBuilt(reached=furthest)


def _build(
    kind: ModelType, config: Any, scale: Scale, reached: dict[Check, str]
) -> TinyModel | Failed:
    """Build at one scale; `reached` is told how far that went."""

    def tiny_config() -> tuple[Any, Any]:
        own, cls = kind.classes()
        fields = tiny_fields(config or own(), scale, OVERRIDES.get(kind.name, {}))
        return cls, own(**fields)

    made = attempt(tiny_config)
    if isinstance(made, Failed):
        return made
    reached[Check.CONFIG] = OK
    cls, tiny = made

    def initialized() -> Any:
        _check_size(cls, tiny, scale)
        torch.manual_seed(SEED)
        return cls(tiny).float().eval()

    model = attempt(initialized)
    if isinstance(model, Failed):
        return model
    reached[Check.INIT] = OK
    inputs = _working_inputs(model, kind.family)
    if isinstance(inputs, Failed):
        return inputs
    return TinyModel(family=kind.family, model=model, inputs=inputs)


def main_output(output: Any) -> torch.Tensor:
    """Return the output that a model is for: the first of floats, if it has no known name.

    Raises:
        ValueError: There is none.
    """
    for name in _MAIN_OUTPUTS:
        value = getattr(output, name, None)
        if torch.is_tensor(value) and value.is_floating_point():
            return value
    floats = [value for value in tensors(output) if value.is_floating_point()]
    if not floats:
        raise ValueError("no output of floats")
    return floats[0]


def tensors(output: Any) -> list[torch.Tensor]:
    """Return all tensors of an output, however they are nested."""
    if torch.is_tensor(output):
        return [output]
    if hasattr(output, "items"):
        output = [value for _, value in output.items()]
    if isinstance(output, list | tuple):
        return [tensor for value in output for tensor in tensors(value)]
    return []


def _check_size(cls: Any, config: Any, scale: Scale) -> None:
    try:
        with torch.device("meta"):
            count = sum(weight.numel() for weight in cls(config).parameters())
    except Exception:
        if scale is Scale.SHALLOW:
            raise
        return  # some classes compute while they are made: the small ones are built as they are
    if count > _MOST_PARAMETERS[scale]:
        raise ValueError(f"even its smallest configuration has {count / 1e6:.0f} M parameters")


def _working_inputs(model: Any, family: str) -> Mapping[str, torch.Tensor] | Failed:
    first: Failed | None = None
    for inputs in candidates(model, family):
        found = attempt(partial(_run, model, inputs))
        if not isinstance(found, Failed):
            return inputs
        first = first or found
    return first or Failed(reason="takes no inputs that are known here")


@torch.no_grad()
def _run(model: Any, inputs: Mapping[str, torch.Tensor]) -> None:
    if not torch.isfinite(main_output(model(**inputs))).all():
        raise ValueError("outputs are not finite")
