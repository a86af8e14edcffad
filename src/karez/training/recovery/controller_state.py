"""The state of a job controller that is stored for the next controller of the job. Pure."""

import json
from dataclasses import dataclass, fields, replace
from typing import Final

from karez.core.codec import from_json, rename_keys
from karez.core.nodes import NodeId
from karez.training.recovery.shard_layouts import ShardLayout
from karez.training.recovery.state import Fault, Gang, Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerState:
    """What a controller stores: the part of a gang's state that no process can report."""

    generation: int
    phase: Phase
    faults: int = 0
    max_committed_step: int = 0
    fault: Fault | None = None
    recent_failures: tuple[tuple[NodeId, float], ...] = ()
    skipped: tuple[int, ...] = ()
    bad_loss_repeats: tuple[int, int] = (0, 0)
    joining: tuple[int, ...] = ()
    state_corrupt: tuple[int, ...] = ()
    shard_layouts: tuple[ShardLayout, ...] = ()
    slowest_start_s: float = 0.0


_OLD_KEYS: Final = {
    "best": "max_committed_step",
    "past": "recent_failures",
    "poison": "bad_loss_repeats",
    "tainted": "state_corrupt",
    "cuts": "shard_layouts",
}
_OLD_LAYOUT_KEYS: Final = {"seats": "ranks", "born": "created_generation"}


def parse_state(text: str) -> ControllerState:
    """Read what a controller stored, also one of karez 0.1 with its older keys.

    Raises:
        ValueError: The text is not a stored controller state.
    """
    stored = rename_keys(json.loads(text), _OLD_KEYS)
    if isinstance(stored, dict) and isinstance(layouts := stored.get("shard_layouts"), list):
        stored["shard_layouts"] = [rename_keys(layout, _OLD_LAYOUT_KEYS) for layout in layouts]
    return from_json(ControllerState, stored)


def capture(gang: Gang) -> ControllerState:
    """The part of a gang's state that is stored."""
    common = {
        f.name: getattr(gang, f.name) for f in fields(ControllerState) if hasattr(gang, f.name)
    }
    joining = tuple(number for number, rank in gang.active if rank.joining)
    corrupt = tuple(number for number, rank in gang.active if rank.state_corrupt)
    return ControllerState(**common, joining=joining, state_corrupt=corrupt)


def restore(gang: Gang, saved: ControllerState | None) -> Gang:
    """A gang that starts, with the stored state that outlives its processes."""
    if saved is None:
        return gang
    slowest = saved.slowest_start_s
    return replace(
        gang, skipped=saved.skipped, shard_layouts=saved.shard_layouts, slowest_start_s=slowest
    )


def indices_used(saved: ControllerState | None) -> set[int]:
    """The numbers of all ranks that ever had a shard of the state."""
    if saved is None:
        return set()
    return {index for layout in saved.shard_layouts for index in layout.ranks}


def inherited_fault(
    saved: ControllerState | None, now: float, step: int, heard_at: float
) -> Fault | None:
    """The fault that a restarted job recovers from; None: it was stopped on purpose, or is new.

    Args:
        saved: The newest state that the controller before stored.
        now: UTC epoch seconds.
        step: The last step that the job was known to have completed.
        heard_at: When that step was complete.
    """
    if saved is None or saved.phase == Phase.DRAINING:
        return None
    if saved.fault is not None:
        return replace(saved.fault, rung="restart")
    if saved.phase == Phase.DONE or not step:
        return None
    return Fault(
        cause="all of its processes were gone when control came back",
        ranks=(),
        rung="restart",
        code="control",
        detected_at=min(now, heard_at),
        confirmed_at=now,
        step_before=step,
    )
