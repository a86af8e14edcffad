"""Whether a model fits where it is to be served, part by part, and what would. Pure.

What it reckons is corrected by what replicas of the same engine were measured to take.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from karez.core.devices import DeviceKind
from karez.core.engines import Capabilities, Task
from karez.core.fit import Fit, FitPart
from karez.core.model_facts import ModelFacts
from karez.core.services import MIN_TOKENS

ACCELERATOR_BATCH = 4096
"""Most tokens that are computed at once on an accelerator."""
LEAST_CONTEXT = 512
"""Shortest context that is proposed: below it few prompts fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What is to be served, and how."""

    engine: str
    capabilities: Capabilities
    facts: ModelFacts
    task: Task
    context_tokens: int
    parallel: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Where it is to be served."""

    kind: DeviceKind
    device: str
    """As it is asked for."""
    bytes: int | None
    """None: nobody knows."""


def reckon(served: Served, kind: DeviceKind) -> tuple[FitPart, ...]:
    """The memory that a replica needs on a kind of device, without what was measured."""
    facts, can = served.facts, served.capabilities
    loaded = can.loaded_bytes.get(kind, 0)
    weights = float(facts.weights_bytes)
    if loaded and facts.weight_bytes:
        weights *= loaded / facts.weight_bytes
    tokens = served.context_tokens * served.parallel
    batch = min(tokens, can.batch_tokens if kind == DeviceKind.CPU else ACCELERATOR_BATCH)
    value = loaded or 2
    cache = facts.cached_values * value * tokens if served.task == Task.GENERATE else 0
    hidden = batch * (4 * facts.width + 2 * facts.inner) * value
    scores = batch * facts.heads * min(served.context_tokens, batch) * value
    mask = batch * (tokens + batch) * value if can.has_mask and cache else 0
    logits = served.parallel * facts.vocabulary * 4 if served.task == Task.GENERATE else 0
    parts = (
        FitPart(what="weights", bytes=int(weights)),
        FitPart(what="KV cache", bytes=cache),
        FitPart(what="activations", bytes=hidden + scores + mask + 4 * logits),
        FitPart(what="engine", bytes=can.program_bytes if kind == DeviceKind.CPU else 0),
    )
    return tuple(part for part in parts if part.bytes)


def total(parts: Sequence[FitPart]) -> int:
    """All parts together, in bytes."""
    return sum(part.bytes for part in parts)


def check_fit(served: Served, room: Room, measured: Sequence[float]) -> Fit:
    """Whether a replica fits into a room, and the nearest that would.

    Args:
        served: What is served.
        room: Where.
        measured: For replicas of the engine, what they took as a multiple of what was reckoned.
    """
    fit = _fit(served, room, measured)
    if fit.is_enough:
        return fit
    for smaller in _smaller(served):
        if _fit(smaller, room, measured).is_enough:
            nearest = f"--context {smaller.context_tokens} --parallel {smaller.parallel}"
            return replace(fit, nearest=nearest)
    return fit


def _fit(served: Served, room: Room, measured: Sequence[float]) -> Fit:
    parts = reckon(served, room.kind)
    beyond = sorted(measured)[len(measured) // 2] - 1 if measured else 0.0
    if beyond > 0:  # less was only not used yet, such as of the KV cache
        more = round(total(parts) * beyond)
        counted = f"measured on {len(measured)} replica{'s' * (len(measured) > 1)}"
        parts = (*parts, FitPart(what=counted, bytes=more))
    return Fit(
        engine=served.engine,
        device=room.device,
        parts=parts,
        room_bytes=room.bytes,
        context_tokens=served.context_tokens,
        parallel=served.parallel,
    )


def _smaller(served: Served) -> Iterator[Served]:
    """The same with fewer answers at once, and then with a shorter context."""
    parallel, context = served.parallel, served.context_tokens
    while parallel > 1:
        parallel //= 2
        yield replace(served, parallel=parallel)
    while context > max(LEAST_CONTEXT, MIN_TOKENS):
        context = max(LEAST_CONTEXT, context // 2)
        yield replace(served, parallel=1, context_tokens=context)
