"""What a job waits for, by the states of others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from karez.core.dependencies import AfterCondition, Dependency, parse_dependency, waits_for
from karez.core.workloads import ENDED, State

dependencies = st.lists(
    st.builds(Dependency, job=st.sampled_from("abc"), when=st.sampled_from(AfterCondition)),
    max_size=4,
)
states = st.dictionaries(st.sampled_from("abc"), st.sampled_from(State))


@given(dependencies, states)
def test_a_job_is_queued_once_all_have_ended_as_they_should_and_no_sooner(
    after: list[Dependency], known: dict[str, State]
) -> None:
    found = waits_for(after, known)
    met = [
        known.get(one.job, State.FAILED) in ENDED
        if one.when == AfterCondition.ANY
        else known.get(one.job, State.FAILED) == State.SUCCEEDED
        for one in after
    ]
    assert (not found.reason) == all(met)
    hopeless = any(
        one.when == AfterCondition.OK
        and known.get(one.job, State.FAILED) in (State.FAILED, State.CANCELLED)
        for one in after
    )
    assert found.is_hopeless == hopeless


def test_dependencies_are_read_as_they_are_written() -> None:
    assert parse_dependency("a") == parse_dependency("a:ok") == Dependency(job="a")
    assert parse_dependency("a:any") == Dependency(job="a", when=AfterCondition.ANY)
    for wrong in ("", ":ok", "a:", "a:never"):
        with pytest.raises(ValueError, match="should be JOB"):
            parse_dependency(wrong)
