"""Situations in which real users of such systems were let down, each rebuilt small on one cloud.

They come from public reports on schedulers, trainers and clusters. Whatever a user does here is
done by the command line or the client, and what counts is what the user then sees.
"""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from karez.client import calls
from karez.client.sdk import Client
from karez.core.artifacts import Artifact, ArtifactKind
from karez.core.dependencies import parse_dependency
from karez.core.devices import DeviceKind
from karez.core.errors import AmbiguousName, BadRequest, BadRow, Failed, NotFound, QuotaExceeded
from karez.core.gangs import GangSpec
from karez.core.identity import Project
from karez.core.jobs import Job, JobSpec, Retry
from karez.core.resource_requests import ResourceRequest
from karez.core.workloads import EndReason, State, WorkloadKind
from tests.contracts.cloud import Cloud, batch, make_cloud, until

pytestmark = pytest.mark.deep

TRAIN = """
import os, signal, sys, time, torch
from karez import training
with training.session(seed=1, snapshot_every=1) as run:
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    run.track(model=model, optimizer=optimizer)
    rows = [torch.full((8, 4), number / 10) for number in range(10)]
    first = os.environ["KAREZ_KEY_NAME"].endswith(".1")
    for batch in run.steps(rows, total=int(sys.argv[2])):
        loss = model(batch).pow(2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if run.step == 5 and sys.argv[1] == "nan":
            loss = loss * float("nan")
        if run.step == 5 and sys.argv[1] == "kill" and run.rank == 0 and first:
            os.kill(os.getpid(), signal.SIGKILL)
        run.commit(loss=loss)
        if sys.argv[1] == "leave" and run.rank == 0 and run.step == 10:
            break
        if sys.argv[1] == "slow":
            time.sleep(0.05)
    print("rank", run.rank, "ends after", run.step)
"""


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    made = make_cloud(
        tmp_path_factory.mktemp("situations"),
        KAREZ_LOG_BYTES="1000000",
        KAREZ_HANG_S="3",
        KAREZ_SHARED_USER="1",
    )
    made.karez("up")
    yield made
    made.karez("down")


@pytest.fixture(scope="module")
def client(cloud: Cloud) -> Iterator[Client]:
    with cloud.client() as client:
        yield client


@pytest.fixture(scope="module")
def train(client: Client, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("train")
    (folder / "train.py").write_text(TRAIN)
    return client.upload(folder, name="train-code", kind=ArtifactKind.CODE)


def trained(train: Artifact, name: str, how: str, *, ranks: int = 2, steps: int = 20) -> JobSpec:
    return JobSpec(
        name=name,
        kind=WorkloadKind.TRAIN,
        command=("python", "train.py", how, str(steps)),
        code=train.id,
        gang=GangSpec(min=ranks, want=ranks),
    )


def ended(client: Client, spec: JobSpec) -> Job:
    """The job, however it ended."""
    job = client.submit(spec)
    until(lambda: client.job(job.id).ended_at is not None, within_s=120.0)
    return client.job(job.id)


def log_of(client: Client, job: Job) -> str:
    return "".join(text for _, text in client.follow_logs("jobs", job.id, follow=False))


def running(client: Client, spec: JobSpec) -> Job:
    job = client.submit(spec)
    until(lambda: client.job(job.id).state == State.RUNNING)
    return client.job(job.id)


# files


def test_1_a_job_that_writes_into_its_code_and_inputs_changes_them_for_nobody_else(
    client: Client, tmp_path: Path
) -> None:
    (tmp_path / "run.sh").write_text("echo more >> run.sh; echo 1 > $KAREZ_INPUTS/data/rows.txt")
    (tmp_path / "rows.txt").write_text("0")
    code = client.upload(tmp_path / "run.sh", name="poison", kind=ArtifactKind.CODE)
    data = client.upload(tmp_path / "rows.txt", name="rows", kind=ArtifactKind.DATASET)
    spec = batch("poison", "sh", "run.sh", code=code.id, inputs={"data": data.id})
    assert ended(client, spec).state == State.SUCCEEDED
    assert client.call(calls.artifact_file(data.id, "rows.txt")) == b"0"
    assert b"more\n" not in client.call(calls.artifact_file(code.id, "run.sh"))[-5:]


def test_2_a_script_finds_its_own_checkpoints_when_it_is_retried(client: Client) -> None:
    script = (
        "cd $KAREZ_CHECKPOINT_DIR; n=$(cat step 2>/dev/null || echo 0); echo from $n; "
        "test $n = 10 || { echo 10 > step; kill -9 $$; }"
    )
    job = ended(client, batch("own", "sh", "-c", script, retry=Retry(limit=1)))
    assert (job.state, job.status.retries) == (State.SUCCEEDED, 1)
    assert "from 10" in log_of(client, job)
    assert len(client.receipts(job.id)) == 1


def test_3_what_a_failed_job_had_written_is_offered(client: Client) -> None:
    job = ended(client, batch("half", "sh", "-c", "echo half > $KAREZ_OUT/result.txt; exit 3"))
    assert job.status.end == EndReason.USER_ERROR
    (output,) = job.status.outputs.values()
    assert client.call(calls.artifact_file(output, "result.txt")) == b"half\n"


def test_4_processes_that_detach_themselves_end_with_their_job(client: Client) -> None:
    script = "setsid sleep 7003 & (setsid sleep 7003 &) ; sleep 0.5; echo up; sleep 7003"
    job = running(client, batch("orphans", "sh", "-c", script))
    until(lambda: "up" in log_of(client, job))

    def left() -> int:
        return sum(p.info["cmdline"] == ["sleep", "7003"] for p in psutil.process_iter(["cmdline"]))

    assert left() == 3
    client.cancel(job.id)
    until(lambda: client.job(job.id).state == State.CANCELLED)
    assert left() == 0


def test_5_workers_that_are_spawned_run_the_script_as_python_does(
    client: Client, tmp_path: Path
) -> None:
    (tmp_path / "pool.py").write_text(
        "import multiprocessing as mp\n"
        "def double(n): return 2 * n\n"
        "if __name__ == '__main__':\n"
        "    with mp.get_context('spawn').Pool(2) as pool: print(pool.map(double, [1, 2]))\n"
    )
    code = client.upload(tmp_path, name="pool", kind=ArtifactKind.CODE)
    spec = JobSpec(
        name="pool", kind=WorkloadKind.TRAIN, command=("python", "pool.py"), code=code.id
    )
    assert "[2, 4]" in log_of(client, ended(client, spec))


def test_6_a_flood_of_output_fills_no_disk_and_keeps_its_end(client: Client, cloud: Cloud) -> None:
    once = "head -c 200000 /dev/zero | tr '\\0' a; echo; sleep 0.1"
    flood = f"for i in $(seq 40); do {once}; done; echo end"
    job = ended(client, batch("flood", "sh", "-c", flood))
    assert log_of(client, job).endswith("end\n")
    kept = [p for p in (cloud.home / "logs" / "workloads").rglob("*") if job.id in str(p)]
    assert sum(p.stat().st_blocks * 512 for p in kept if p.is_file()) < 4_000_000


def test_7_an_upload_keeps_modes_and_links_and_says_what_it_leaves_out(
    cloud: Cloud, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "tool").write_text("#!/bin/sh\necho tool\n")
    (tmp_path / "bin" / "tool").chmod(0o755)
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("bin/tool")
    (tmp_path / ".env").write_text("PASSWORD=1")
    words = ("jobs", "submit", "--name", "tree", "--watch", "--code", str(tmp_path), "--")
    done = cloud.karez(*words, "sh", "-c", "./link; ls -A")
    assert "left out: .env" in done.stderr
    said = cloud.karez("logs", "tree").stdout
    for word in ("tool", "empty", "link"):
        assert word in said
    assert ".env" not in said
    (tmp_path / "out").symlink_to("/etc/passwd")
    refused = cloud.karez(*words, "true", check=False)
    assert refused.returncode == 2
    assert "out -> /etc/passwd" in refused.stderr


def test_8_progress_bars_and_control_characters_are_shown_as_lines(
    client: Client, cloud: Cloud
) -> None:
    script = (
        "import sys, time\n"
        "for i in range(100): sys.stdout.write(f'\\rdone {i}%'); sys.stdout.flush()\n"
        "print('\\x1b[2J\\x1b]0;title\\x07', '日本語😀')\n"
    )
    ended(client, batch("noisy", "python", "-c", script))
    said = cloud.karez("logs", "noisy").stdout
    assert "日本語😀" in said
    assert len(said.splitlines()) < 5
    assert "\x1b" not in said


# words and refusals


def test_9_two_live_jobs_of_one_name_are_told_apart(client: Client) -> None:
    first, second = (client.submit(batch("twin", "sleep", "60")) for _ in range(2))
    with pytest.raises(AmbiguousName, match=f"{second.id}.*{first.id}"):
        client.cancel("twin")
    for job in (first, second):
        client.cancel(job.id)
    until(lambda: all(client.job(j.id).state == State.CANCELLED for j in (first, second)))


def test_10_variables_that_the_gang_needs_are_not_replaced_unseen(client: Client) -> None:
    with pytest.raises(BadRequest, match="RANK is set by the cloud"):
        client.submit(batch("rank", "true", env={"RANK": "7"}))


def test_11_times_and_sizes_are_read_as_people_write_them(cloud: Cloud) -> None:
    words = ("jobs", "submit", "--name", "units", "--max-duration", "1h30m", "--watch")
    cloud.karez(*words, "--each", "cpu=1,memory=300M", "--", "true")
    wrong = cloud.karez("jobs", "submit", "--max-duration", "soon", "--", "true", check=False)
    assert wrong.returncode == 2
    assert "write it like 90s, 1h30m or 12h" in wrong.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"messages": []}\n', "messages: it is empty"),
        ('{"messages": [{"role": "user", "content": "caf\u00e9"}]}'.encode("latin-1"), "no UTF-8"),
        (b'{"messages": [{"role": "user", "content": null}]}\n', "it is null"),
        (b'{"text": "hi"}\n', "it is missing"),
    ],
)
def test_12_data_that_no_recipe_can_use_is_refused_when_it_is_added(
    client: Client, tmp_path: Path, content: bytes, said: str
) -> None:
    (tmp_path / "train.jsonl").write_bytes(content)
    with pytest.raises(BadRow, match=said):
        client.upload(tmp_path, name="bad", kind=ArtifactKind.DATASET, format="chat-jsonl")


def test_13_a_model_that_no_engine_loads_is_refused_with_the_conversion(
    cloud: Cloud, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("{}")
    cloud.karez("models", "add", str(tmp_path), "--name", "raw")
    refused = cloud.karez("services", "deploy", "raw", "--name", "s", check=False)
    assert refused.returncode == 2
    assert "karez models convert raw" in refused.stderr


def test_14_what_will_be_refused_is_refused_before_the_upload(
    cloud: Cloud, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "big.bin").write_bytes(os.urandom(1000))
    words = ("jobs", "submit", "--name", "never", "--code", str(tmp_path), "--each", "cpu=999")
    refused = cloud.karez(*words, "--", "true", check=False)
    assert refused.returncode == 2
    assert "could never start here" in refused.stderr
    assert not [a for a in client.artifacts() if a.spec.name == "never-code"]


def test_15_a_missing_input_and_a_missing_program_are_named(client: Client) -> None:
    with pytest.raises(NotFound, match="no-such-data"):
        client.submit(batch("input", "true", inputs={"data": "no-such-data"}))
    job = ended(client, batch("program", "no-such-program"))
    assert job.state == State.FAILED
    assert "cannot run 'no-such-program'" in job.status.reason


# training


def test_16_a_rank_that_leaves_its_loop_is_named_soon(client: Client, train: Artifact) -> None:
    began = time.monotonic()
    job = ended(client, trained(train, "leave", "leave", steps=200))
    assert job.state == State.FAILED
    assert "rank 0" in job.status.reason
    assert time.monotonic() - began < 60


def test_17_a_loss_that_is_no_number_ends_no_job_silently(client: Client, train: Artifact) -> None:
    job = ended(client, trained(train, "nan", "nan"))
    assert "nan" in (job.status.reason + log_of(client, job)).lower()
    assert client.receipts(job.id) or job.state == State.FAILED


def test_18_a_rank_that_is_killed_goes_on_from_the_same_step(
    client: Client, train: Artifact
) -> None:
    job = ended(client, trained(train, "kill", "kill"))
    (receipt,) = client.receipts(job.id)
    assert job.state == State.SUCCEEDED
    assert receipt.steps_lost <= 1
    steps = [row.step for row in client.metrics(job.id) if row.rank == 0]
    assert steps == list(range(1, 21))


def test_19_a_job_goes_on_while_control_is_killed(
    client: Client, cloud: Cloud, train: Artifact
) -> None:
    job = running(client, trained(train, "control", "slow", steps=60))
    os.kill(cloud.control(), signal.SIGKILL)
    assert client.wait(job.id, limit_s=120).state == State.SUCCEEDED
    assert client.receipts(job.id) == []


def test_20_a_loader_that_loses_a_worker_ends_the_job_with_the_reason(
    client: Client, tmp_path: Path
) -> None:
    (tmp_path / "loader.py").write_text(
        "import os, signal, torch\n"
        "class Rows(torch.utils.data.Dataset):\n"
        "    def __len__(self): return 64\n"
        "    def __getitem__(self, i):\n"
        "        if i == 40: os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return torch.ones(4)\n"
        "if __name__ == '__main__':\n"
        "    for _ in torch.utils.data.DataLoader(Rows(), batch_size=4, num_workers=1): pass\n"
    )
    code = client.upload(tmp_path, name="loader", kind=ArtifactKind.CODE)
    job = ended(client, batch("loader", "python", "loader.py", code=code.id))
    assert job.state == State.FAILED
    assert "DataLoader worker" in job.status.reason


# limits, queue and ends


def test_21_a_quota_is_named_and_what_exceeds_it_for_ever_is_refused(client: Client) -> None:
    client.add_project(Project(name="small", quota={DeviceKind.CPU: 1000}))
    with pytest.raises(QuotaExceeded, match="small"):
        client.submit(batch("many", "true", project="small", gang=GangSpec(min=2, want=2)))
    first = running(client, batch("one", "sleep", "60", project="small"))
    second = client.submit(batch("two", "sleep", "60", project="small"))
    until(lambda: "quota" in client.why(second.id).reason)
    for job in (second, first):
        client.cancel(job.id)


def test_22_a_job_that_takes_more_memory_than_asked_for_is_told_how_much(client: Client) -> None:
    hog = "import time; held = bytearray(400 << 20); time.sleep(60)"
    gang = GangSpec(each=(ResourceRequest(memory_bytes=100 << 20),))
    job = ended(client, batch("hog", "python", "-c", hog, gang=gang))
    assert "was granted 100.0 MiB; ask for memory=" in job.status.reason


def test_23_a_job_that_runs_too_long_is_ended_and_says_so(client: Client) -> None:
    job = ended(client, batch("long", "sleep", "600", max_duration_s=1.0))
    assert job.status.end == EndReason.TIMED_OUT


def test_24_a_job_that_waits_says_why_and_is_cancelled_at_once(client: Client) -> None:
    cores = len(os.sched_getaffinity(0))
    gang = GangSpec(each=(ResourceRequest(milli=1000 * cores),))
    first = running(client, batch("all", "sleep", "60", gang=gang))
    second = client.submit(batch("next", "true", gang=gang))
    until(lambda: first.id in {h.id for h in client.why(second.id).holders})
    assert client.cancel(second.id).state == State.CANCELLED
    client.cancel(first.id)
    until(lambda: client.job(first.id).state == State.CANCELLED)


def test_25_what_waits_for_a_job_that_fails_does_not_wait_for_ever(client: Client) -> None:
    client.submit(batch("first", "false"))
    later = client.submit(batch("second", "true", after=(parse_dependency("first:ok"),)))
    cleanup = client.submit(batch("third", "true", after=(parse_dependency("first:any"),)))
    assert client.wait(cleanup.id).state == State.SUCCEEDED
    until(lambda: client.job(later.id).state == State.CANCELLED)
    assert "has failed" in client.job(later.id).status.reason


def test_26_one_command_ends_a_sweep_and_its_limit_is_kept(client: Client) -> None:
    sweep = client.submit(batch("sweep", "sh", "-c", "echo up; sleep 60", array="0-9%2"))
    until(lambda: client.job(sweep.id).state == State.RUNNING)
    active = [j for j in client.jobs(array=sweep.id) if j.state != State.HELD]
    assert len(active) <= 2
    client.cancel("sweep")
    until(lambda: client.job(sweep.id).state == State.CANCELLED)
    assert {j.state for j in client.jobs(array=sweep.id)} == {State.CANCELLED}


def test_27_ctrl_c_leaves_the_job_running(cloud: Cloud, client: Client) -> None:
    words = ("jobs", "submit", "--name", "left", "--watch", "--", "sleep", "60")
    with cloud.started(*words) as watching:
        until(lambda: any(j.spec.name == "left" and j.started_at for j in client.jobs()))
        watching.send_signal(signal.SIGINT)
        _, said = watching.communicate(timeout=30)
    assert "Traceback" not in said
    assert client.job("left").state == State.RUNNING
    client.cancel("left")
    until(lambda: client.job("left").state == State.CANCELLED)


def test_28_a_failure_says_what_the_program_said_last(client: Client) -> None:
    script = "print('step 1'); raise ValueError('the learning rate is negative')"
    job = ended(client, batch("says", "python", "-c", script))
    assert "ValueError: the learning rate is negative" in job.status.reason
    with pytest.raises(Failed, match="the learning rate is negative"):
        client.wait(job.id)
