"""Collects what each quiesced rank can restore, and starts the next generation. Pure."""

from dataclasses import replace

from karez.training.recovery.commands import Decision, QueryShards, StartGeneration
from karez.training.recovery.events import ReadyToRestore
from karez.training.recovery.restore_point import (
    all_can_restore,
    common_step,
    departed,
    farthest_source,
    is_stored,
    member_indices,
    needs_state,
    shard_owners,
)
from karez.training.recovery.shard_layouts import layout_at, layouts_after
from karez.training.recovery.state import IN_SESSION, Gang, Phase, RankPhase, with_phase, with_rank


def on_ready(gang: Gang, event: ReadyToRestore, now: float) -> Decision:
    """Note the steps that a rank can restore; the last rank starts the generation."""
    is_past_start = gang.ranks[event.rank].phase in (*IN_SESSION, RankPhase.EXITED)
    if event.generation == 0 and is_past_start:
        return gang, ()  # an old event of its start, read again by the next controller
    gang = _with_start(gang, event, now)
    if event.generation not in (0, gang.generation):
        return gang, ()
    if gang.phase not in (Phase.QUIESCING, Phase.PLACING):
        return gang, ()
    steps = _valid_steps(gang, event)
    gang = _with_loss(gang, event)
    gang = with_rank(
        gang,
        event.rank,
        phase=RankPhase.QUIESCED,
        steps=steps,
        sources=tuple(event.steps[step] for step in steps),
        shards_found=event.shards_found,
    )
    return start_if_ready(gang, now)


def _with_loss(gang: Gang, event: ReadyToRestore) -> Gang:
    """The gang with what its fault may cost: steps that were heard of late, and the cadence."""
    fault = gang.fault
    if fault is None:
        return gang
    return replace(
        gang,
        fault=replace(
            fault,
            step_before=max(fault.step_before, gang.ranks[event.rank].committed),
            snapshot_every=max(fault.snapshot_every, event.snapshot_every),
        ),
    )


def _with_start(gang: Gang, event: ReadyToRestore, now: float) -> Gang:
    """The gang with what the event tells of the process's start and of the state's kind."""
    start_s = now - gang.since if event.generation == 0 else 0.0
    is_start = gang.ranks[event.rank].phase in (RankPhase.ABSENT, RankPhase.STARTED)
    return replace(
        with_phase(gang, event.rank, RankPhase.LEAVING) if is_start else gang,
        is_session=True,
        is_sharded=gang.is_sharded or event.sharded,
        since=gang.since if gang.is_session else now,
        slowest_start_s=max(gang.slowest_start_s, start_s),
    )


def _valid_steps(gang: Gang, event: ReadyToRestore) -> tuple[int, ...]:
    """Restorable steps in order, without those of a layout that was given up."""
    indices = member_indices(gang)
    return tuple(
        step
        for step in sorted(event.steps)
        if event.created_generation.get(step, gang.generation)
        >= layout_at(gang.shard_layouts, step, indices).created_generation
    )


def start_if_ready(gang: Gang, now: float) -> Decision:
    """Start the generation once every rank is ready and all shards are located."""
    if gang.phase != Phase.QUIESCING or not gang.all_in(RankPhase.QUIESCED):
        return gang, ()
    absent = departed(gang)
    unasked = tuple(
        n for n, rank in gang.active if absent and not set(absent) <= set(rank.shards_found or ())
    )
    if not unasked:
        return _start_generation(gang, now)
    for number in unasked:
        gang = with_phase(gang, number, RankPhase.QUERIED)
    return gang, tuple(
        QueryShards(rank=n, generation=gang.generation, departed=absent) for n in unasked
    )


def _start_generation(gang: Gang, now: float) -> Decision:
    step, indices = common_step(gang), member_indices(gang)
    is_first = gang.is_sharded and not step and not all_can_restore(gang, 0)
    is_resplit = is_first or is_stored(gang, step)
    owners = indices if is_resplit else shard_owners(gang, step)
    is_resharded = owners != indices
    command = StartGeneration(
        generation=gang.generation,
        step=step,
        skipped=gang.skipped,
        need_state=tuple(
            n for n, rank in gang.active if is_first or (step and needs_state(gang, rank, step))
        ),
        shard_ranks=owners if is_resharded else (),
        created_generation=layout_at(gang.shard_layouts, step, indices).created_generation
        if is_resharded
        else 0,
    )
    return _resume(gang, step, now, is_resplit=is_resplit), (command,)


def _resume(gang: Gang, step: int, now: float, *, is_resplit: bool) -> Gang:
    """The gang in its phase of resuming from a step."""
    fault = gang.fault
    if fault is not None:
        source = farthest_source(gang, fault.ranks, step)
        fault = replace(fault, decided_at=now, step_restored=step, source=source)
    for number, _ in gang.active:
        gang = with_rank(
            gang, number, phase=RankPhase.RESTORING, committed=step, state_corrupt=False
        )
    layouts = layouts_after(
        gang.shard_layouts,
        step,
        member_indices(gang),
        gang.generation,
        is_resplit=is_resplit or not (gang.shard_layouts or step),
    )
    return replace(
        gang,
        phase=Phase.RESUMING,
        since=now,
        fault=fault,
        shard_layouts=layouts,
        restore_step=step,
    )
