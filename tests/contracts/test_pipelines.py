"""Pipelines in a real cloud: each step once, though whoever asks is killed."""

import json
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from karez.core.workloads import State
from tests.contracts.cloud import Cloud, make_cloud, until

pytestmark = pytest.mark.story
PIPELINE = """
name = "sums"

[steps.numbers]
command = ["sh", "run.sh", "numbers", "1 2 3"]
code = "code"

[steps.double]
command = ["sh", "run.sh", "doubled", "$(cat $KAREZ_INPUTS/from/all)"]
code = "code"
inputs = { from = "steps/numbers/numbers" }

[steps.count]
command = ["sh", "run.sh", "counted", "$(wc -w < $KAREZ_INPUTS/from/all)"]
code = "code"
inputs = { from = "steps/numbers/numbers" }

[steps.both]
command = ["sh", "run.sh", "both", "$(cat $KAREZ_INPUTS/a/all) $(cat $KAREZ_INPUTS/b/all)"]
code = "code"
inputs = { a = "steps/double/doubled", b = "steps/count/counted" }
"""
RUN = 'mkdir "$KAREZ_OUT/$1" && eval "echo $2" > "$KAREZ_OUT/$1/all"\n'


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    made = make_cloud(tmp_path_factory.mktemp("home"))
    made.karez("up")
    yield made
    made.karez("down")


def write(folder: Path, text: str = PIPELINE) -> Path:
    (folder / "code").mkdir(exist_ok=True)
    (folder / "code" / "run.sh").write_text(RUN)
    file = folder / "sums.toml"
    file.write_text(text)
    return file


def killed(cloud: Cloud, file: Path, after_s: float) -> None:
    """Ask for a pipeline, and be killed at some moment."""
    with cloud.started("pipelines", "run", str(file)) as command:
        deadline = time.monotonic() + after_s
        until(lambda: command.poll() is not None or time.monotonic() > deadline, every_s=0.01)
        command.send_signal(signal.SIGKILL)


def check(cloud: Cloud, file: Path, name: str) -> dict[str, str]:
    """Run it to its end; each step has one job. Returns step -> job."""
    jobs = json.loads(cloud.karez("pipelines", "run", str(file), "--json").stdout)
    with cloud.client() as client:
        (both,) = jobs["both"]["status"]["outputs"].values()
        assert client.artifact_file(both, "all").decode().split() == ["1", "2", "3", "3"]
        named = [job.spec.name for job in client.jobs(limit=1000)]
    steps = [one for one in named if one.startswith(f"{name}-")]
    assert sorted(steps) == sorted(f"{name}-{step}" for step in jobs)
    return {step: job["id"] for step, job in jobs.items()}


def test_a_pipeline_goes_on_though_its_command_is_killed(cloud: Cloud, tmp_path: Path) -> None:
    file = write(tmp_path)
    for after_s in (0.6, 1.2):
        killed(cloud, file, after_s)
    ids = check(cloud, file, "sums")
    again = cloud.karez("pipelines", "run", str(file)).stdout
    assert all(ident in again for ident in ids.values())  # and none was done twice
    shown = cloud.karez("pipelines", "show", str(file)).stdout
    assert shown.count("succeeded") == 4

    text = PIPELINE.replace("wc -w", "wc -l")  # another count, and what follows from it
    file = write(tmp_path, text)
    changed = json.loads(cloud.karez("pipelines", "run", str(file), "--json").stdout)
    same = {step for step, job in changed.items() if job["id"] == ids[step]}
    assert same == {"numbers", "double"}


def test_a_step_that_failed_is_tried_anew(cloud: Cloud, tmp_path: Path) -> None:
    text = PIPELINE.replace('name = "sums"', 'name = "tries"')
    file = write(tmp_path, text.replace('"doubled", "', '"doubled", "$(sleep 3)'))
    with cloud.client() as client:

        def is_running() -> bool:
            found = [job for job in client.jobs() if job.spec.name == "tries-double"]
            return bool(found) and found[0].state == State.RUNNING

        with cloud.started("pipelines", "run", str(file)) as command:
            until(is_running)
            client.cancel("tries-double")
            until(lambda: command.poll() is not None)
        assert command.returncode != 0
        until(lambda: client.job("tries-both").state == State.CANCELLED)
        cloud.karez("pipelines", "run", str(file))
        names = [job.spec.name for job in client.jobs(limit=1000)]
        assert names.count("tries-double") == names.count("tries-both") == 2
        assert names.count("tries-numbers") == names.count("tries-count") == 1


@pytest.mark.deep
def test_fifty_kills_change_nothing(cloud: Cloud, tmp_path: Path) -> None:
    file = write(tmp_path, PIPELINE.replace('name = "sums"', 'name = "fifty"'))
    drawn = random.Random(5)
    for _ in range(50):
        killed(cloud, file, drawn.uniform(0.1, 1.5))
    check(cloud, file, "fifty")
