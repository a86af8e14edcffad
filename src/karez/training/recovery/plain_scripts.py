"""Recoveries of scripts without a session: they report no step, so none tells when it is over."""

from dataclasses import replace

from karez.training.recovery.commands import WriteReceipt
from karez.training.recovery.state import Gang


def complete_plain_recovery(gang: Gang) -> tuple[Gang, tuple[WriteReceipt, ...]]:
    """The gang without its fault, if it has one, and the receipt: it was over with the start."""
    if gang.fault is None or gang.is_session:
        return gang, ()
    began_at = gang.since
    fault = replace(gang.fault, source="start", decided_at=began_at, restored_at=began_at)
    receipt = WriteReceipt(fault=fault, generation=gang.generation, resumed_at=began_at)
    return replace(gang, fault=None), (receipt,)
