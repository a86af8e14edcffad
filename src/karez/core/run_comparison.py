"""What tells runs apart: their settings, inputs and code, and what came out. Pure."""

from collections.abc import Mapping, Sequence

from karez.core.jobs import Job

Value = str | int | float | bool | None
Facts = Mapping[str, Mapping[str, Value]]
"""Output of a job -> the facts on its card."""


def described(job: Job, facts: Facts) -> dict[str, Value]:
    """A run as rows of a table: what it was asked for, then what came of it."""
    spec, status = job.spec, job.status
    rows: dict[str, Value] = {
        "name": spec.name,
        "runs": spec.recipe or " ".join(spec.command),
        **{f"setting {name}": value for name, value in sorted(spec.settings.items())},
        **{f"input {name}": value for name, value in sorted(spec.inputs.items())},
        "code": spec.code,
        "environment": spec.environment or spec.image,
        "workers": f"{spec.gang.min}:{spec.gang.want}",
        "each": " | ".join(str(need) for need in spec.gang.each),
        **{f"variable {name}": value for name, value in sorted(spec.env.items())},
        "state": str(job.state),
        "step": status.step,
        "loss": status.loss,
        "seconds": _seconds(job),
    }
    for output in sorted(facts):
        for name, value in facts[output].items():
            if isinstance(value, int | float):
                rows[f"{output}/{name}"] = value
    return rows


def _seconds(job: Job) -> float | None:
    if job.started_at is None or job.ended_at is None:
        return None
    return round(job.ended_at - job.started_at, 1)


def compared(runs: Sequence[Mapping[str, Value]], *, everything: bool) -> list[list[Value]]:
    """Rows of (what, the value of each run); those that all share only with `everything`."""
    names = list(dict.fromkeys(name for run in runs for name in run))
    rows: list[list[Value]] = [[name, *(run.get(name) for run in runs)] for name in names]
    return [row for row in rows if everything or len({str(value) for value in row[1:]}) > 1]
