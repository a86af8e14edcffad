"""`karez jobs submit`: what a file and the options describe, and which of them wins."""

from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from karez.cli.options import given, takes
from karez.cli.remote.job_options import JobOptions, job_spec
from karez.core.gang_syntax import make_gang
from karez.core.gangs import Topology
from karez.core.jobfile import parse_job
from karez.core.jobs import JobSpec, Retry
from karez.core.workloads import WorkloadKind

FILE = """
name = "tune"
project = "vision"
kind = "train"
recipe = "sft-lora"
priority = 3
max_duration = "2h"
secrets = ["token"]
inputs = { model = "m", data = "d" }
env = { A = "1", B = "2" }
settings = { steps = 10 }
[gang]
workers = { min = 2, want = 4, max = 8 }
each = [{ npu = 1 }]
on = ["zone=a"]
spares = 1
[retry]
limit = 2
causes = ["crashed"]
"""
ALL = (
    "--name x --project p --kind train --set steps=5 --set fast=true --workers 2:3:4 "
    "--each cpu=2 --topology spread --on n1 --off n2 --role loader:1:cpu=1 --spares 2 -i model=M "
    "--env C=3 --secret s --priority 7 --max-duration 1h --expected-duration 30m --deadline 2h "
    "--preemptible --ladder in-place,restart --peers 2 --chaos --retries 4"
)


def described(*words: str) -> JobSpec:
    """The job that these words of the command line describe."""
    specs: list[JobSpec] = []
    app = typer.Typer(rich_markup_mode=None)

    @app.command()
    @takes(JobOptions)
    def submit(options: JobOptions, ctx: typer.Context) -> None:
        specs.append(job_spec(options, given(ctx)))

    done = CliRunner().invoke(app, list(words))
    if isinstance(done.exception, ValueError):
        raise done.exception
    assert done.exit_code == 0, done.output
    (spec,) = specs
    return spec


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "job.toml"
    path.write_text(FILE)
    return str(path)


def test_a_command_without_options_is_a_job_with_defaults() -> None:
    assert described("--", "python", "a/Train_it.py") == JobSpec(
        name="train_it", command=("python", "a/Train_it.py")
    )
    assert described("--recipe", "sft-lora") == JobSpec(name="sft-lora", recipe="sft-lora")


def test_every_option_reaches_the_job() -> None:
    assert described(*ALL.split(), "--", "run") == JobSpec(
        name="x",
        project="p",
        kind=WorkloadKind.TRAIN,
        command=("run",),
        settings={"steps": 5, "fast": True},
        gang=make_gang(
            "2:3:4",
            ["cpu=2"],
            Topology.SPREAD,
            on=["n1"],
            off=["n2"],
            roles=["loader:1:cpu=1"],
            spares=2,
        ),
        inputs={"model": "M"},
        env={"C": "3"},
        secrets=("s",),
        priority=7,
        max_duration_s=3600.0,
        expected_duration_s=1800.0,
        deadline_s=7200.0,
        preemptible=True,
        retry=Retry(limit=4),
        ladder=("in-place", "restart"),
        ladder_fixed=True,
        peers=2,
        chaos=True,
    )


def test_a_file_without_options_is_the_parsed_job(file: str) -> None:
    assert described("-f", file) == parse_job(FILE)


@pytest.mark.parametrize(
    ("words", "part", "value"),
    [
        ("--name other", "name", "other"),
        ("--project p", "project", "p"),
        ("--kind batch", "kind", WorkloadKind.BATCH),
        ("--priority 0", "priority", 0),
        ("--max-duration 1h", "max_duration_s", 3600.0),
        ("--secret s --secret t", "secrets", ("s", "t")),
        ("--set steps=5 --set lr=0.1", "settings", {"steps": 5, "lr": 0.1}),
        ("-i data=D2", "inputs", {"model": "m", "data": "D2"}),
        ("--env B=9 --env C=3", "env", {"A": "1", "B": "9", "C": "3"}),
        ("--workers 1", "gang.min", 1),
        ("--workers 1", "gang.max", None),
        ("--workers 3:5", "gang.want", 5),
        ("--topology spread", "gang.topology", Topology.SPREAD),
        ("--spares 0", "gang.spares", 0),
        ("--off n1", "gang.among.off", ("n1",)),
        ("--off n1", "gang.among.on", ("zone=a",)),
        ("--on n1", "gang.among.on", ("n1",)),
        ("--retries 5", "retry.limit", 5),
        ("--retries 5", "retry.causes", ("crashed",)),
        ("--ladder restart", "ladder_fixed", True),
        ("--peers 3", "peers", 3),
        ("--chaos", "chaos", True),
        ("--preemptible", "preemptible", True),
        ("-- python x.py", "command", ("python", "x.py")),
        ("-- python x.py", "recipe", ""),
        ("--recipe evaluate", "recipe", "evaluate"),
    ],
)
def test_an_option_replaces_its_value_of_the_file_only(
    file: str, words: str, part: str, value: object
) -> None:
    spec = described("-f", file, *words.split())
    assert dig(spec, part) == value
    kept = parse_job(FILE)
    untouched = {"name", "project", "priority", "inputs", "env", "settings", "max_duration_s"}
    for name in untouched - {part}:
        assert getattr(spec, name) == getattr(kept, name), name


def test_all_options_together_replace_every_value_of_the_file(file: str) -> None:
    alone = described(*ALL.split(), "--", "run")
    both = described("-f", file, *ALL.split(), "--", "run")
    tables = ("settings", "inputs", "env", "retry")
    for name in JobSpec.__slots__:
        if name not in tables:
            assert getattr(both, name) == getattr(alone, name), name
    assert (both.env, both.inputs) == (
        {"A": "1", "B": "2", "C": "3"},
        {"model": "M", "data": "d"},
    )


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("--recipe evaluate -- python x.py", "either a command or a recipe"),
        ("--kind serve", "deploy a service"),
        ("--workers 3:2", "min <= want"),
        ("--env x", "NAME=VALUE"),
        ("--expected-duration 3h", "longer than max_duration"),
    ],
)
def test_contradictory_options_are_refused(file: str, words: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        described("-f", file, *words.split())


def dig(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = getattr(value, name)
    return value
