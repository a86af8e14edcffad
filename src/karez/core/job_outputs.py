"""Inputs that another job makes: `jobs/JOB/OUTPUT` instead of the name of an artifact. Pure.

A job that has such an input is held until the other has succeeded.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from karez.core.names import check_folder_name

_PREFIX = "jobs"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOf:
    """What a job makes."""

    job: str
    """Its id; in a request, its name will do."""
    output: str
    """Name of the output, such as `model`."""

    def __str__(self) -> str:
        return f"{_PREFIX}/{self.job}/{self.output}"


def parse_output(text: str) -> OutputOf | None:
    """Read `jobs/JOB/OUTPUT`; None: it is the name or id of an artifact. Raises ValueError."""
    prefix, slash, rest = text.partition("/")
    if prefix != _PREFIX or not slash or "/" not in rest:
        return None
    job, _, output = rest.partition("/")
    if not job:
        raise ValueError(f"{text!r} should be {_PREFIX}/JOB/OUTPUT")
    check_folder_name(output)
    return OutputOf(job=job, output=output)


def resolved_inputs(
    inputs: Mapping[str, str], outputs: Mapping[str, Mapping[str, str]]
) -> dict[str, str]:
    """The inputs by artifact.

    Args:
        inputs: Name -> artifact, or an output of a job.
        outputs: Id of a job -> its outputs by name.

    Raises:
        ValueError: A job made no such output.
    """
    found = {}
    for name, text in inputs.items():
        wanted = parse_output(text)
        if wanted is None:
            found[name] = text
            continue
        made = outputs.get(wanted.job, {})
        if wanted.output not in made:
            told = ", ".join(sorted(made)) or "nothing"
            raise ValueError(f"{wanted.job} made no output {wanted.output!r}, but {told}")
        found[name] = made[wanted.output]
    return found
