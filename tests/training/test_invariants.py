"""The invariants find what must not be; that they hold is checked after every transition."""

from dataclasses import replace

import pytest

from karez.core.nodes import NodeId
from karez.training.recovery.invariants import transition_violations, violations
from karez.training.recovery.state import NOWHERE, Fault, Gang, Phase, Rank, RankPhase

FAULT = Fault(cause="x", ranks=(0,), rung="in-place", detected_at=0.0, step_before=0)
TRAINING = Rank(node=NodeId("a"), phase=RankPhase.TRAINING)
RUNNING = Gang(ranks=(TRAINING, TRAINING), phase=Phase.RUNNING, is_session=True, generation=3)


def with_first(**changes: object) -> Gang:
    first = replace(TRAINING, **changes)  # type: ignore[arg-type]  # Rank's fields
    return replace(RUNNING, ranks=(first, TRAINING))


@pytest.mark.parametrize(
    ("gang", "told"),
    [
        pytest.param(RUNNING, [], id="well"),
        pytest.param(
            with_first(phase=RankPhase.QUIESCED),
            [
                "it is running with ranks that are [<RankPhase.QUIESCED: 'quiesced'>]",
                "rank 0 is quiesced in a gang that is running",
            ],
            id="quiesced",
        ),
        pytest.param(with_first(node=NOWHERE), ["rank 0 is training without a node"], id="node"),
        pytest.param(
            replace(with_first(committed=4), restore_step=4),
            ["rank 1 is at step 0, before 4"],
            id="step",
        ),
        pytest.param(
            replace(RUNNING, fault=FAULT),
            ["it is running and still recovers from a fault"],
            id="fault",
        ),
        pytest.param(
            replace(RUNNING, phase=Phase.DONE),
            ["it is done before every rank has exited"],
            id="done",
        ),
    ],
)
def test_what_does_not_hold_is_told(gang: Gang, told: list[str]) -> None:
    assert violations(gang) == told


@pytest.mark.parametrize(
    ("after", "told"),
    [
        pytest.param(with_first(phase=RankPhase.FINISHED), [], id="forward"),
        pytest.param(
            with_first(phase=RankPhase.RESTORING),
            ["rank 0 went from training to restoring, attempt 1 to 1"],
            id="back",
        ),
        pytest.param(
            with_first(attempt=3, phase=RankPhase.ABSENT),
            ["rank 0 went from training to absent, attempt 1 to 3"],
            id="attempt",
        ),
        pytest.param(
            replace(RUNNING, generation=2),
            ["the generation went back from 3 to 2"],
            id="generation",
        ),
    ],
)
def test_what_a_transition_must_not_do_is_told(after: Gang, told: list[str]) -> None:
    assert transition_violations(RUNNING, after) == told
