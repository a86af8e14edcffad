"""Makes the receipt of a completed recovery. Pure."""

from karez.core.receipts import Receipt
from karez.core.workloads import WorkloadId
from karez.training.recovery.commands import WriteReceipt


def receipt_from(
    job: WorkloadId, command: WriteReceipt, epoch: int, *, is_emulated: bool
) -> Receipt:
    """The unsigned receipt of a recovery, without its link to the receipt before."""
    fault = command.fault
    return Receipt(
        id=f"rcp-{job.removeprefix('job-')}-{command.generation}",
        job=job,
        generation=command.generation,
        cause=fault.cause,
        ranks=fault.ranks,
        rung=fault.rung,
        source=fault.source,
        detected_at=fault.detected_at,
        confirmed_at=fault.confirmed_at,
        decided_at=fault.decided_at,
        restored_at=fault.restored_at,
        resumed_at=command.resumed_at,
        step_before=fault.step_before,
        step_restored=fault.step_restored,
        epoch=epoch,
        code=fault.code,
        nodes=fault.nodes,
        skipped=fault.skipped,
        snapshot_every=fault.snapshot_every,
        emulated=is_emulated,
    )
