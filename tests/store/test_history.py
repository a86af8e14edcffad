"""History in the store: receipts, metrics, checkpoints, transitions, incidents."""

from karez.core.receipts import Receipt
from karez.core.recovery import CheckpointPart, FaultReport, Transition
from karez.core.usage import MetricRow
from karez.store.sql import SqlStore


def test_a_step_done_again_replaces_the_older_one_and_never_the_newer(store: SqlStore) -> None:
    def row(generation: int, loss: float) -> MetricRow:
        return MetricRow(step=1, rank=0, loss=loss, at=1.0, generation=generation)

    store.history.add_metrics("j", [row(1, 3.0)])
    store.history.add_metrics("j", [row(2, 2.0), row(2, 2.0)])
    store.history.add_metrics("j", [row(1, 3.0)])
    assert store.history.metrics("j") == [row(2, 2.0)]
    assert store.history.metrics("j", after=1) == []


def test_a_checkpoint_counts_once_every_rank_has_stored_it(store: SqlStore) -> None:
    def add(step: int, rank: int, *, world: int = 2, whole: bool = False) -> CheckpointPart:
        part = CheckpointPart(
            step=step, rank=rank, digest=f"d{step}{rank}", world=world, whole=whole
        )
        store.history.add_checkpoint("j", part)
        return part

    old = [add(5, 0), add(5, 1)]
    add(9, 0)
    newest = store.history.newest_checkpoint
    assert newest("j", [0, 1]) == {0: [old[0]], 1: [old[1]]}
    assert newest("j", [0, 1, 2]) == dict.fromkeys([0, 1, 2], old)  # each cuts its own from these
    add(7, 0, world=3), add(7, 1), add(7, 2)  # of two sizes: no step can be made of them
    assert newest("j", [0, 1]) == {0: [old[0]], 1: [old[1]]}
    add(8, 0, world=4), add(8, 1, world=4)  # two of four shards, stored as their gang ended
    assert newest("j", [0, 1]) == {0: [old[0]], 1: [old[1]]}
    first, second = add(12, 0, whole=True), add(12, 1)
    assert newest("j", [0, 1]) == {0: [first], 1: [second, first]}
    assert newest("j", [0, 1, 2])[2] == [first]  # any number of ranks can start from it
    assert newest("j", [1]) == {1: [second, first]}


def test_the_log_of_recoveries_and_incidents_keep_their_order(store: SqlStore) -> None:
    for n in range(5):
        step = Transition(at=float(n), generation=n, phase="running", body="{}")
        store.history.add_transition("j", step)
        report = FaultReport(sender="dcgm", node=f"n{n % 2}", code="xid-79", at=float(n))
        store.history.add_incident(report)
    assert [t.generation for t in store.history.transitions("j", newest=2)] == [3, 4]
    assert store.history.transitions("other") == []
    assert [r.at for r in store.history.incidents(since=0.5)] == [1.0, 2.0, 3.0, 4.0]
    assert [r.at for r in store.history.incidents(since=0.5, node="n1")] == [1.0, 3.0]


def test_a_receipt_is_recorded_once(store: SqlStore) -> None:
    receipt = Receipt(
        id="r",
        job="j",
        generation=2,
        cause="kill",
        ranks=(1,),
        rung="in-place",
        source="shm",
        detected_at=1.0,
        decided_at=1.1,
        restored_at=1.2,
        resumed_at=1.3,
        step_before=4,
        step_restored=3,
    )
    store.history.add_receipt(receipt)
    store.history.add_receipt(receipt)
    assert store.history.receipts("j") == [receipt]
