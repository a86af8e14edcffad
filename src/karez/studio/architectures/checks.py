"""What is tried with a tiny model on the host: each check is a function that says how it went."""

import copy
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import peft
import torch

from karez.runtime.tracked import Tracked
from karez.runtime.training_state import pack, unpack_per_rank, unpack_shared
from karez.studio.architectures.example_inputs import labels_for
from karez.studio.architectures.rows import NONE, OK, Check
from karez.studio.architectures.tiny_model import SEED, TinyModel, main_output, tensors
from karez.studio.recipes.lora_targets import excluded_modules

NEW_TOKENS = 4
_STEPS = 3
_SAVED, _MERGED = 1e-4, 1e-3
_MOST_LOSS = 1e9


def save(tiny: TinyModel) -> str:
    """Save the model and read it back."""
    with tempfile.TemporaryDirectory() as folder:
        tiny.model.save_pretrained(folder)
        if not list(Path(folder).glob("*.safetensors")):
            return "nothing was saved as safetensors"
        other = type(tiny.model).from_pretrained(folder).float().eval()
    return _same(_outputs(tiny.model, tiny.inputs), _outputs(other, tiny.inputs), _SAVED)


def generate(tiny: TinyModel) -> str:
    """Generate a few tokens, if the model has a head for it and its inputs have tokens."""
    has_tokens = "input_ids" in tiny.inputs or tiny.family in ("seq2seq", "speech-seq2seq")
    if not (tiny.model.can_generate() and has_tokens):
        return NONE
    inputs = {k: v for k, v in tiny.inputs.items() if not k.startswith("decoder_")}
    with torch.no_grad():
        answer = tiny.model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
    return OK if answer.numel() else "nothing was generated"


def train(tiny: TinyModel) -> str:
    """Train for a few steps."""
    model = copy.deepcopy(tiny.model).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(_STEPS):
        value = step(model, optimizer, tiny)
        if not abs(value) < _MOST_LOSS:  # a NaN neither
            return f"a loss of {value:.3g}"
    return OK


def recovery(tiny: TinyModel) -> str:
    """Pack the state between two steps as a session does, and go on from it with a fresh model."""
    model = copy.deepcopy(tiny.model).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    step(model, optimizer, tiny)
    state = pack(Tracked(model=model, optimizer=optimizer, others={}))
    per_rank, shared = b"".join(state.per_rank), b"".join(state.shared)
    first = step(model, optimizer, tiny)
    fresh = copy.deepcopy(tiny.model).train()
    tracked = Tracked(
        model=fresh, optimizer=torch.optim.AdamW(fresh.parameters(), lr=1e-3), others={}
    )
    torch.manual_seed(SEED + 1)  # what it must not depend on
    unpack_shared(shared, tracked)
    unpack_per_rank(per_rank, tracked)
    again = step(fresh, tracked.optimizer, tiny)
    if again != first:
        return f"the next step's loss was {first!r}, and {again!r} after recovery"
    pairs = zip(model.parameters(), fresh.parameters(), strict=True)
    if not all(torch.equal(one, other) for one, other in pairs):
        return "parameters differ after the next step"
    return OK


def lora(tiny: TinyModel) -> Mapping[Check, str]:
    """Put an adapter on all linear modules; then merge it."""
    if not any(isinstance(one, torch.nn.Linear) for one in tiny.model.modules()):
        return {Check.LORA: NONE, Check.MERGE: NONE}
    model = peft.get_peft_model(
        copy.deepcopy(tiny.model),
        peft.LoraConfig(
            r=4,
            lora_alpha=8,
            target_modules="all-linear",
            exclude_modules=excluded_modules(tiny.model),
            init_lora_weights=False,
        ),
    )
    model.train()
    loss_of(model(**tiny.inputs)).backward()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    if not any(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in weights):
        return {Check.LORA: "no gradient reached the adapter"}
    model.eval()
    adapted = _outputs(model, tiny.inputs)
    merged = _outputs(model.merge_and_unload(), tiny.inputs)
    return {Check.LORA: OK, Check.MERGE: _same(adapted, merged, _MERGED)}


CHECKS: Mapping[Check, Callable[[TinyModel], str]] = {
    Check.SAVE: save,
    Check.GENERATE: generate,
    Check.TRAIN: train,
    Check.RECOVERY: recovery,
}


def step(model: Any, optimizer: torch.optim.Optimizer, tiny: TinyModel) -> float:
    """Do one step with the model's own loss where it has one; returns the loss."""
    device = next(model.parameters()).device
    inputs = {name: value.to(device) for name, value in tiny.inputs.items()}
    labels = labels_for(tiny.family, tiny.inputs, model)
    try:
        output = model(**inputs, **{name: value.to(device) for name, value in labels.items()})
    except Exception:
        if not labels:
            raise
        output = model(**inputs)  # labels of another shape: a loss of the outputs
    loss = loss_of(output)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return float(loss)


def loss_of(output: Any) -> torch.Tensor:
    """Return the model's own loss; else the mean square of its first outputs.

    Raises:
        ValueError: No output has a gradient.
    """
    own = getattr(output, "loss", None)
    if torch.is_tensor(own) and own.requires_grad:
        return own.float().mean()
    floats = [v for v in tensors(output) if v.is_floating_point() and v.requires_grad]
    if not floats:
        raise ValueError("no output has a gradient")
    return torch.stack([(value.float() ** 2).mean() for value in floats[:3]]).sum()


@torch.no_grad()
def _outputs(model: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    torch.manual_seed(SEED)  # some draw noise in evaluation too
    return main_output(model(**inputs))


def _same(one: torch.Tensor, other: torch.Tensor, tolerance: float) -> str:
    if one.shape != other.shape:
        return f"outputs of {tuple(one.shape)} became {tuple(other.shape)}"
    gap = float((one - other).abs().max())
    return (
        OK if gap <= tolerance * max(float(one.abs().max()), 1) else f"outputs differ by {gap:.2g}"
    )
