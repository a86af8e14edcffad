"""Ends one generation of a gang and begins the next: every rank leaves its process group. Pure."""

from dataclasses import replace

from karez.training.recovery.commands import Quiesce
from karez.training.recovery.state import IN_SESSION, Gang, Phase, RankPhase


def next_generation(gang: Gang, phase: Phase, now: float) -> tuple[Gang, tuple[Quiesce, ...]]:
    """Begin the next generation in this phase; every living rank is told to leave its group."""
    ranks = tuple(
        replace(
            rank,
            phase=RankPhase.LEAVING if rank.phase in IN_SESSION else rank.phase,
            shards_found=None,
        )
        for rank in gang.ranks
    )
    gang = replace(
        gang,
        ranks=ranks,
        generation=gang.generation + 1,
        phase=phase,
        since=now,
        suspect=None,
    )
    quiesces = tuple(
        Quiesce(rank=number, generation=gang.generation)
        for number, rank in gang.active
        if rank.is_alive
    )
    return gang, quiesces
