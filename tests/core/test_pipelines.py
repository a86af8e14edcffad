import pytest

from karez.core.job_outputs import OutputOf, parse_output, resolved_inputs
from karez.core.pipelines import Pipeline, parse_pipeline, step_key

DESK = """
name = "desk"
[steps.report]
recipe = "evaluate"
inputs = { model = "steps/train/model", data = "steps/rows/data" }
[steps.train]
recipe = "train-classifier"
kind = "train"
inputs = { model = "all-minilm-l6-v2", data = "steps/rows/data" }
settings = { epochs = 3 }
[steps.tell]
command = ["true"]
code = "./code"
after = ["report"]
[steps.rows]
recipe = "prepare-data"
settings = { name = "desk" }
inputs = { tables = "desk-tables" }
"""


def keys(pipeline: Pipeline) -> dict[str, str]:
    found: dict[str, str] = {}
    for step in pipeline.steps:
        found[step.name] = step_key(step, step.spec, found)
    return found


def test_steps_are_in_the_order_of_what_they_need() -> None:
    pipeline = parse_pipeline(DESK)
    assert [step.name for step in pipeline.steps] == ["rows", "train", "report", "tell"]
    report, tell = pipeline.steps[2:]
    assert report.needs == ("train", "rows")
    assert report.taken == {"model": ("train", "model"), "data": ("rows", "data")}
    assert (tell.needs, tell.code) == (("report",), "./code")
    assert report.spec.name == "desk-report"


def test_a_step_is_another_if_it_or_one_before_it_has_changed() -> None:
    before = keys(parse_pipeline(DESK))
    after = keys(parse_pipeline(DESK.replace("epochs = 3", "epochs = 4")))
    assert {name for name in before if before[name] != after[name]} == {"train", "report", "tell"}
    assert keys(parse_pipeline(DESK + "\n# the same")) == before


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('name = "x"', "no steps"),
        ('[steps.a]\ncommand = ["true"]', "invalid name"),
        ('name = "x"\nstep = 1', "unknown key 'step'"),
        ('name = "x"\n[steps.a]\nrecipe = "r"\ninputs = { b = "steps/c/d" }', "needs 'c'"),
        ('name = "x"\n[steps.a]\nrecipe = "r"\ninputs = { b = "steps/c" }', "STEP/OUTPUT"),
        ('name = "x"\n[steps.a]\ncommand = ["true"]\narray = "0-3"', "no 'array'"),
        ('name = "x"\n[steps.a]\ncommand = ["true"]\nrecipe = "r"', r"\[steps.a\]: give either"),
        ('name = "x"\n[steps.a]\ncommand = ["true"]\ncolour = 1', r"\[steps.a\] has an unknown"),
        ('name = "x"\nsteps = 3', "should be a table"),
        (
            'name = "x"\n[steps.a]\ncommand=["a"]\nafter=["b"]'
            '\n[steps.b]\ncommand=["b"]\nafter=["a"]',
            "in a circle",
        ),
    ],
)
def test_what_is_no_pipeline_is_told(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_pipeline(text)


def test_inputs_name_what_jobs_make() -> None:
    assert parse_output("jobs/tune/model") == OutputOf(job="tune", output="model")
    assert str(OutputOf(job="tune", output="model")) == "jobs/tune/model"
    for text in ("model", "art-12", "jobs/model", "project/model", "other/tune/model"):
        assert parse_output(text) is None
    for text in ("jobs//model", "jobs/tune/", "jobs/tune/a/b", "jobs/tune/.."):
        with pytest.raises(ValueError, match=r"jobs/JOB/OUTPUT|invalid name"):
            parse_output(text)
    made = {"job-1": {"model": "art-1", "report": "art-2"}}
    assert resolved_inputs({"a": "art-0", "b": "jobs/job-1/model"}, made) == {
        "a": "art-0",
        "b": "art-1",
    }
    with pytest.raises(ValueError, match="job-1 made no output 'data', but model, report"):
        resolved_inputs({"b": "jobs/job-1/data"}, made)
