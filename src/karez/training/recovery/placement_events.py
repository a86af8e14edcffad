"""Transitions of a gang that gets nodes for lost ranks, or changes its size. Pure."""

from dataclasses import replace

from karez.core.workloads import EndReason
from karez.training.recovery.commands import Decision, StartRank, kill_rank, start_rank
from karez.training.recovery.events import PlacesFound, Resized, Shrunk
from karez.training.recovery.gang_failure import fail_gang
from karez.training.recovery.generations import next_generation
from karez.training.recovery.resuming import start_if_ready
from karez.training.recovery.state import (
    NOWHERE,
    Gang,
    Phase,
    Rank,
    RankPhase,
    with_phase,
    with_rank,
)


def on_placement_event(gang: Gang, event: PlacesFound | Shrunk | Resized, now: float) -> Decision:
    """Continue with other nodes or with another number of ranks, in a phase that expects it."""
    match event:
        case PlacesFound() if gang.phase == Phase.PLACING:
            return _on_places_found(gang, event, now)
        case Shrunk(keep=keep) if gang.phase == Phase.PLACING:
            return _on_shrunk(gang, keep, now)
        case Resized() if gang.phase == Phase.RUNNING and gang.may_resize:
            return _on_resized(gang, event, now)
        case _:
            return gang, ()


def _on_places_found(gang: Gang, event: PlacesFound, now: float) -> Decision:
    if any(not rank.node and number not in event.nodes for number, rank in gang.active):
        return fail_gang(gang, EndReason.NODE_LOST, "no devices are left for the lost ranks", now)
    for number, node in event.nodes.items():
        gang = with_rank(gang, number, node=node)
    starts = tuple(start_rank(gang, number) for number in event.nodes)
    fault = None if gang.fault is None else replace(gang.fault, rung=event.rung)
    is_in_place = event.rung == "in-place"
    no_move_until = now + gang.limits.pin_s if is_in_place else gang.no_move_until
    gang = replace(gang, phase=Phase.QUIESCING, since=now, fault=fault, no_move_until=no_move_until)
    gang, commands = start_if_ready(gang, now)
    return gang, (*starts, *commands)


def _on_shrunk(gang: Gang, keep: tuple[int, ...], now: float) -> Decision:
    for number, _ in gang.active:
        if number not in keep:
            gang = with_phase(gang, number, RankPhase.RETIRED)
    fault = None if gang.fault is None else replace(gang.fault, rung="shrink")
    return start_if_ready(replace(gang, phase=Phase.QUIESCING, since=now, fault=fault), now)


def _on_resized(gang: Gang, event: Resized, now: float) -> Decision:
    """Begin a generation with fewer ranks or more: without a fault, and without a receipt."""
    kills = tuple(kill_rank(gang, number, "the gang is smaller now") for number in event.leave)
    for number in event.leave:
        gang = with_phase(gang, number, RankPhase.RETIRED)
    ranks = list(gang.ranks)
    for number, node in sorted(event.join.items()):
        while len(ranks) < number:
            ranks.append(Rank(node=NOWHERE, phase=RankPhase.RETIRED))  # never used
        ranks.append(Rank(node=node, joining=True))
    gang, quiesces = next_generation(replace(gang, ranks=tuple(ranks)), Phase.QUIESCING, now)
    starts = tuple(
        StartRank(rank=number, node=node, attempt=1) for number, node in event.join.items()
    )
    return gang, (*kills, *quiesces, *starts)
