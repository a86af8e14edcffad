"""Pipelines: jobs that follow from each other, as a file describes them. Pure.

A file has a name and a table for each step, which is a job file without a name; an input
`steps/STEP/OUTPUT` is what another step makes.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from typing import Any

from karez.core.codec import to_json
from karez.core.jobfile import job_of, only, parse_toml, table_of
from karez.core.jobs import JobSpec
from karez.core.names import check_name

_PREFIX = "steps/"
_TOP = {"name", "project", "steps"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineStep:
    """One job of a pipeline."""

    name: str
    spec: JobSpec
    """Its inputs may be `steps/STEP/OUTPUT`."""
    code: str = ""
    """Folder on this machine that the job runs in; empty: none."""
    after: tuple[str, ...] = ()
    """Steps that must have succeeded first, beside those whose outputs it takes."""

    @property
    def needs(self) -> tuple[str, ...]:
        """The steps that come before it."""
        taken = (step for step, _ in self.taken.values())
        return tuple(dict.fromkeys((*taken, *self.after)))

    @property
    def taken(self) -> Mapping[str, tuple[str, str]]:
        """Input -> (step, output) of those that other steps make."""
        found = {}
        for name, text in self.spec.inputs.items():
            if text.startswith(_PREFIX):
                step, _, output = text.removeprefix(_PREFIX).partition("/")
                found[name] = (step, output)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """Steps, each after those that it needs."""

    name: str
    project: str
    steps: tuple[PipelineStep, ...]


def parse_pipeline(text: str) -> Pipeline:
    """Parse a pipeline from TOML text.

    Raises:
        ValueError: Invalid TOML, an unknown key or step, a circle, or an invalid value.
    """
    table = parse_toml(text)
    only(table, _TOP, "the file")
    name, project = str(table.get("name", "")), str(table.get("project", "default"))
    check_name(name)
    tables = table_of(table, "steps")
    if not tables:
        raise ValueError("the file has no steps: write a table [steps.NAME] for each")
    steps = {one: _step(one, tables[one], name, project) for one in tables}
    for step in steps.values():
        missing = [one for one in step.needs if one not in steps]
        if missing:
            there = ", ".join(steps)
            raise ValueError(f"step {step.name} needs {missing[0]!r}; there are: {there}")
    try:
        order = TopologicalSorter({one: steps[one].needs for one in steps}).static_order()
        return Pipeline(name=name, project=project, steps=tuple(steps[one] for one in order))
    except CycleError as error:
        raise ValueError(f"the steps go round in a circle: {' -> '.join(error.args[1])}") from error


def _step(name: str, table: Any, pipeline: str, project: str) -> PipelineStep:
    where = f"[steps.{name}]"
    if not isinstance(table, dict):
        raise ValueError(f"{where} should be a table")
    own = {"name", "project", "array"} & table.keys()
    if own:
        raise ValueError(f"{where} has no {min(own)!r}: the pipeline gives it")
    after, code = table.get("after", ()), table.get("code", "")
    if not isinstance(after, list | tuple) or not isinstance(code, str):
        raise ValueError(f"{where}: after is a list of steps, code the path of a folder")
    rest = {key: value for key, value in table.items() if key not in ("after", "code")}
    try:
        spec = job_of({**rest, "name": f"{pipeline}-{name}", "project": project}, where)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    step = PipelineStep(name=name, spec=spec, code=code, after=tuple(map(str, after)))
    for taken, (other, output) in step.taken.items():
        if not other or not output:
            raise ValueError(f"{where}: input {taken} should be {_PREFIX}STEP/OUTPUT")
    return step


def step_key(step: PipelineStep, spec: JobSpec, keys: Mapping[str, str]) -> str:
    """What a step is told apart by: what it runs, on which content, after which steps.

    Args:
        step: The step.
        spec: Its job, with artifacts as ids, which follow from their content.
        keys: Keys of the steps before.
    """
    inputs = dict(spec.inputs)
    for name, (other, output) in step.taken.items():
        inputs[name] = f"{keys[other]}/{output}"
    after = sorted(keys[other] for other in step.needs)
    told = {**to_json(replace(spec, inputs=inputs, after=())), "after": after}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def job_spec(
    step: PipelineStep, artifacts: Mapping[str, str], code: str, jobs: Mapping[str, str]
) -> JobSpec:
    """The job of a step.

    Args:
        step: The step.
        artifacts: Input -> artifact id, of those that no step makes.
        code: Artifact of its folder.
        jobs: Step -> id of its job.
    """
    taken = {name: f"jobs/{jobs[one]}/{output}" for name, (one, output) in step.taken.items()}
    return replace(step.spec, inputs={**artifacts, **taken}, code=code)
