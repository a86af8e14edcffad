"""Jobs that start after others: what they wait for, and what follows from the others' states. Pure.

Slurm's `afterok` and `afterany` mean the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

from karez.core.validation import FORBID
from karez.core.workloads import ENDED, State


class AfterCondition(StrEnum):
    """How the other job must end."""

    OK = "ok"
    """It succeeds."""
    ANY = "any"
    """It ends, however."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependency:
    """A job that must have ended first."""

    __pydantic_config__: ClassVar[Any] = FORBID

    job: str
    """Its id; in a request, its name will do."""
    when: AfterCondition = AfterCondition.OK

    def __str__(self) -> str:
        return f"{self.job} to {'succeed' if self.when == AfterCondition.OK else 'end'}"


def parse_dependency(text: str) -> Dependency:
    """Read `JOB`, `JOB:ok` or `JOB:any`. Raises ValueError."""
    job, colon, when = text.partition(":")
    if not job or (colon and when not in tuple(AfterCondition)):
        raise ValueError(f"{text!r} should be JOB, JOB:ok or JOB:any")
    return Dependency(job=job, when=AfterCondition(when or "ok"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What a job still waits for; nothing: it may be queued."""

    reason: str = ""
    is_hopeless: bool = False
    """Whether that can never be."""


def waits_for(after: Sequence[Dependency], states: Mapping[str, State]) -> Waiting:
    """Judge the dependencies of a job by the states of the others; one that is gone has failed."""
    left = []
    for dependency in after:
        state = states.get(dependency.job, State.FAILED)
        if state not in ENDED:
            left.append(f"{dependency} ({state})")
        elif dependency.when == AfterCondition.OK and state != State.SUCCEEDED:
            how = "has been cancelled" if state == State.CANCELLED else "has failed"
            return Waiting(reason=f"{dependency.job} {how}", is_hopeless=True)
    return Waiting(reason=f"it waits for {', '.join(left)}" if left else "")
