"""Arrays: the indices as Slurm writes them, and what many jobs look like as one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from karez.core.arrays import ArraySpec, ArrayTask, parse_array, state_of_array
from karez.core.jobs import ArrayProgress, Job, JobSpec, array_as_job
from karez.core.workloads import ENDED, State, WorkloadId


def test_indices_are_read_as_slurm_writes_them() -> None:
    for text, indices, limit in (
        ("0-3", (0, 1, 2, 3), None),
        ("7", (7,), None),
        ("1,3,5-7", (1, 3, 5, 6, 7), None),
        ("0-15:4", (0, 4, 8, 12), None),
        ("5, 1-2%10", (1, 2, 5), 10),
        ("3-5,4", (3, 4, 5), None),
    ):
        assert parse_array(text) == ArraySpec(indices=indices, limit=limit)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("", "should be like"),
        ("a-b", "should be like"),
        ("-3", "should be like"),
        ("5-3", "counts up"),
        ("0-9:0", "counts up"),
        ("0-99%", "behind %"),
        ("0-99%0", "behind %"),
        ("0-99999", "more than 10,000 jobs"),
        ("0-2147483647", "more than 10,000 jobs"),
        ("0-99999999999", "counts up"),
    ],
)
def test_what_is_no_array_is_refused_with_the_way_to_write_it(wrong: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_array(wrong)


JOB_STATES = sorted(set(State) - {State.IDLE})
counts = st.dictionaries(st.sampled_from(JOB_STATES), st.integers(1, 5), min_size=1)


@given(counts)
def test_an_array_has_ended_once_all_its_jobs_have_and_succeeded_if_all_did(
    states: dict[State, int],
) -> None:
    state = state_of_array(states)
    assert (state in ENDED) == (set(states) <= ENDED)
    assert (state == State.SUCCEEDED) == (set(states) == {State.SUCCEEDED})
    assert states.get(state)


@given(counts)
def test_an_array_seen_as_one_job_says_how_far_it_is(states: dict[State, int]) -> None:
    spec = JobSpec(name="sweep", command=("true",), array="0-99")
    first = Job(
        id=WorkloadId("job-a_0"), spec=spec, array=ArrayTask(id="job-a", index=0), created_at=1.0
    )
    progress = ArrayProgress()
    for state, count in states.items():
        progress = progress.merged(
            ArrayProgress(states={state: count}, started_at=2.0, ended_at=9.0)
        )
    seen = array_as_job(first, progress)
    doing = seen.status.progress
    assert doing is not None
    assert doing.of == sum(states.values())
    assert doing.done == sum(count for state, count in states.items() if state in ENDED)
    assert (seen.ended_at is None) == (doing.done < doing.of)
    for state, count in states.items():
        assert f"{count} {state}" in seen.status.reason
