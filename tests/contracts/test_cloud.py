"""A whole cloud: `karez up` with real Ray, killed where it hurts, and gone without a trace."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from http.server import HTTPServer
from pathlib import Path

import psutil
import pytest

from karez.client import calls
from karez.client.sdk import AsyncClient, Client
from karez.core import environment
from karez.core.artifacts import ArtifactKind
from karez.core.errors import Failed, NotFound
from karez.core.gangs import GangSpec
from karez.core.identity import KeySpec, Project, Role
from karez.core.jobs import JobSpec
from karez.core.nodes import Isolation
from karez.core.resource_requests import ResourceRequest
from karez.core.workloads import ENDED, EndReason, State, WorkloadKind
from karez.drivers.ray_environment import ray_environment
from tests.contracts.cloud import Cloud, batch, kill_all, make_cloud, until
from tests.drivers.test_alert_senders import Hook, served
from tests.ports import free_port
from tests.wheels import make_wheel

pytestmark = pytest.mark.story


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    made = make_cloud(tmp_path_factory.mktemp("cloud"), KAREZ_ALERT_HOSTS="127.0.0.1")
    said = made.karez("up").stdout
    assert "admin key (shown once" in said
    family = made.family()
    memory = Path((made.home / "node" / "memory.path").read_text())
    yield made
    made.karez("down")
    alive = [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    assert not alive
    assert not memory.exists()
    assert not (made.home / "cloud.json").exists()


def test_only_loopback_is_listened_on_rays_ports_included(cloud: Cloud) -> None:
    pids = {process.pid for process in cloud.family()}
    listening = [
        c for c in psutil.net_connections("inet") if c.status == "LISTEN" and c.pid in pids
    ]
    assert len(listening) > 5
    assert {c.laddr.ip for c in listening if c.laddr} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_secrets_are_private(cloud: Cloud) -> None:
    """No key or token in a process list, in a log, or in a file that others may read."""
    names = ("admin.key", "gateway.key", "node.key", "engine.key", "ray.token", "pepper")
    hidden = {name: (cloud.home / name).read_text().strip() for name in names}
    assert cloud.home.stat().st_mode & 0o777 == 0o700
    for name in names:
        assert (cloud.home / name).stat().st_mode & 0o777 == 0o600
    lines = [" ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"])]
    logs = [path.read_text(errors="replace") for path in (cloud.home / "logs").rglob("*.log")]
    for name, text in hidden.items():
        assert not [line for line in lines if text in line], name
        assert not [log for log in logs if text in log], name


def test_a_script_with_its_code_inputs_secrets_and_outputs(cloud: Cloud, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(
        "import os, pathlib, helper\n"
        "text = pathlib.Path(os.environ['KAREZ_INPUTS'], 'data', 'd.txt').read_text()\n"
        "token, mode = os.environ['TOKEN'], os.environ['MODE']\n"
        "print('helper says', helper.WORD, 'secret is', len(token), mode)\n"
        "out = pathlib.Path(os.environ['KAREZ_OUT'], 'result'); out.mkdir()\n"
        "(out / 'r.txt').write_text(text.upper())\n"
    )
    (tmp_path / "helper.py").write_text("WORD = 'hello'\n")
    (tmp_path / "d.txt").write_text("abc")
    with cloud.client() as client:
        client.upload(tmp_path / "d.txt", name="d", kind=ArtifactKind.DATASET)
        code = client.upload(tmp_path, name="code", kind=ArtifactKind.CODE)
        client.put_secret("default", "TOKEN", "12345")
        job = client.submit(
            batch(
                "script",
                "python",
                "main.py",
                code=code.id,
                inputs={"data": "d"},
                secrets=("TOKEN",),
                env={"MODE": "fast"},
            )
        )
        done = client.wait(job.id)
        assert client.call(calls.artifact_file(done.status.outputs["result"], "r.txt")) == b"ABC"
        made = client.call(calls.artifact(done.status.outputs["result"]))
        assert made.spec.lineage.job == job.id
        assert set(made.spec.lineage.inputs) == {"data", "code"}
    shown = cloud.karez("logs", "script", "--grep", "helper").stdout
    assert "helper says hello secret is 5 fast" in shown


def test_an_array_by_a_batch_script_of_slurm(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each index writes its result; one fails, and a webhook is told; one cancel ends all."""
    (tmp_path / "limit.txt").write_text("2")
    (tmp_path / "sweep.sbatch").write_text(
        "#!/bin/bash\n#SBATCH --array=1-3%2 --job-name=sweep\n#SBATCH -o log-%a.txt\n"
        "echo $1 $SLURM_ARRAY_TASK_ID of $SLURM_ARRAY_TASK_COUNT > $KAREZ_OUT/r.txt\n"
        "srun test $KAREZ_ARRAY_INDEX -le $(cat limit.txt)\n"
    )
    monkeypatch.setattr(Hook, "got", [])
    with served(HTTPServer(("127.0.0.1", 0), Hook)) as port:
        to = ("--to", f"http://127.0.0.1:{port}/", "--jobs", "sw*")
        cloud.karez("alerts", "add", "bad", "--on", "failed", *to)
        assert (
            "sent: karez: this tries the alert bad" in cloud.karez("alerts", "test", "bad").stdout
        )
        _run_sweep(cloud, tmp_path)
        until(lambda: len(Hook.got) == 2)
    assert b"1 failed; the first that failed is" in Hook.got[1][2]


def _run_sweep(cloud: Cloud, tmp_path: Path) -> None:
    words = ("jobs", "submit", "-f", str(tmp_path / "sweep.sbatch"), "--code", str(tmp_path))
    said = cloud.karez(*words, "--watch", "--", "task", check=False)
    assert said.returncode == 1
    assert "note: --output does nothing here" in said.stderr
    with cloud.client() as client:
        array = client.job("sweep")
        assert f"2 succeeded, 1 failed; the first that failed is {array.id}_3" in said.stderr
        jobs = client.jobs(array=array.id)
        assert [job.state for job in jobs] == [State.FAILED, State.SUCCEEDED, State.SUCCEEDED]
        (result,) = jobs[-1].status.outputs.values()
        assert client.call(calls.artifact_file(result, "r.txt")) == b"task 1 of 3\n"
        assert client.call(calls.artifact(result)).spec.name == "sweep-1-r"
        slow = client.submit(batch("slow", "sleep", "60", array="0-5%1"))
        until(lambda: client.job("slow").state == State.RUNNING)
        client.cancel("slow")
        until(lambda: client.job(slow.id).state == State.CANCELLED)
    shown = cloud.karez("jobs", "list", "--array", array.id).stdout
    assert f"{array.id}_2" in shown


def test_a_way_in_that_outlives_control(cloud: Cloud, tmp_path: Path) -> None:
    """A shell beside a running job, files both ways, and one of its ports on this machine."""
    (tmp_path / "serve.py").write_text(
        "import http.server, pathlib\n"
        "server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), "
        "http.server.SimpleHTTPRequestHandler)\n"
        "pathlib.Path('port.txt').write_text(str(server.server_port))\n"
        "server.serve_forever()\n"
    )
    with cloud.client() as client:
        code = client.upload(tmp_path, name="serve-code", kind=ArtifactKind.CODE)
        job = client.submit(batch("web", "python", "serve.py", code=code.id))
        until(lambda: client.job("web").state == State.RUNNING)

    def attach(*command: str) -> "subprocess.CompletedProcess[str]":
        return cloud.karez("jobs", "attach", "web", "--", *command, check=False)

    until(lambda: attach("cat", "port.txt").stdout.isdecimal())
    said = attach("sh", "-c", "echo $KAREZ_JOB; exit 3")
    assert (said.stdout, said.returncode) == (f"{job.id}\n", 3)
    (tmp_path / "new.txt").write_text("copied")
    assert cloud.karez("cp", str(tmp_path / "new.txt"), "web:in").stdout == "web:in/new.txt\n"
    cloud.karez("cp", "web:port.txt", str(tmp_path))
    remote, local = (tmp_path / "port.txt").read_text(), free_port()
    with cloud.started("port-forward", "web", f"{local}:{remote}") as forward:
        assert forward.stdout is not None
        assert f"http://127.0.0.1:{local} is port {remote}" in forward.stdout.readline()

        def get() -> bytes:
            with urllib.request.urlopen(f"http://127.0.0.1:{local}/in/new.txt", timeout=60) as page:
                content: bytes = page.read()
                return content

        assert get() == b"copied"
        os.kill(cloud.control(), signal.SIGKILL)
        assert get() == b"copied"
        forward.send_signal(signal.SIGINT)
        assert forward.wait(20) == 0
    refused = cloud.karez("port-forward", "web", "1", check=False)
    assert refused.returncode == 2
    assert remote in refused.stderr
    with cloud.client() as client:
        client.cancel("web")
        until(lambda: client.job("web").state == State.CANCELLED)
        details = [row.detail for row in client.audit()]
        assert "shell of rank 0: cat port.txt" in details
        assert f"port of rank 0: {remote}" in details
        assert "copy-out of rank 0: port.txt" in details


def test_a_gang_in_an_environment_of_its_own(cloud: Cloud, tmp_path: Path) -> None:
    """Made from wheels; ranks are forked in it, and one that is killed goes on there."""
    make_wheel(tmp_path / "wheels", "waterwheel", "1.2", "TURNS = 12\n")
    (tmp_path / "code").mkdir()
    (tmp_path / "requirements.txt").write_text("waterwheel==1.2\n")
    (tmp_path / "code" / "train.py").write_text(
        "import os, signal, sys, torch, waterwheel\n"
        "from karez import training\n"
        "with training.session(snapshot_every=1) as run:\n"
        "    model = torch.nn.Linear(1, 1)\n"
        "    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)\n"
        "    run.track(model=model, optimizer=optimizer)\n"
        "    for batch in run.steps([torch.ones(1)] * 12, total=12):\n"
        "        if run.step == 6 and os.environ['KAREZ_KEY_NAME'].endswith('.0.1'):\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        model(batch).backward()\n"
        "        optimizer.step()\n"
        "        run.commit(loss=float(waterwheel.TURNS))\n"
        "print('in', sys.prefix == os.environ['VIRTUAL_ENV'])\n"
    )
    requirements = str(tmp_path / "requirements.txt")
    wheels = ("--wheels", str(tmp_path / "wheels"))
    cloud.karez("environments", "add", requirements, "--name", "mill", *wheels)
    submit = ("jobs", "submit", "--watch")
    code = ("--kind", "train", "--code", str(tmp_path / "code"))
    words = (*submit, "--name", "grind", "--environment", "mill", *code)
    done = cloud.karez(*words, "--", "python", "train.py", check=False)
    assert done.returncode == 0, done.stderr
    assert "making the environment mill" in done.stdout
    with cloud.client() as client:
        job = client.job("grind")
        assert len(client.receipts("grind")) == 1
        assert {row.loss for row in client.metrics("grind")} == {12.0}
        assert "in True" in "".join(t for _, t in client.follow_logs("jobs", job.id, follow=False))
    (tmp_path / "requirements.txt").write_text("waterwheel==9\n")
    wrong = (*submit, "--name", "stuck", "--requirements", requirements)
    failed = cloud.karez(*wrong, "--", "python", "-c", "print()", check=False)
    assert "The environment stuck-environment is not to be had" in failed.stderr
    assert "waterwheel==9" in failed.stderr


async def test_the_async_client_speaks_the_same_words(cloud: Cloud) -> None:
    key = (cloud.home / "admin.key").read_text()
    async with AsyncClient(str(cloud.address()["url"]), key) as client:
        job = await client.submit(batch("async", "true"))
        assert (await client.wait(job.id)).state == State.SUCCEEDED
        assert (await client.jobs(limit=1))[0].id == job.id


@pytest.mark.deep
def test_a_migrated_script_is_verified_on_the_pool(cloud: Cloud, tmp_path: Path) -> None:
    before, after, paper = tmp_path / "before", tmp_path / "after", tmp_path / "paper.json"
    before.mkdir()
    shutil.copy(Path(__file__).parents[1] / "migration/scripts/lstm.py", before / "train.py")
    shutil.copytree(before, after)
    cloud.karez("migrate", "rewrite", str(after), "--in-place", "--dirty")
    words = (
        "migrate",
        "verify",
        str(before),
        str(after),
        "--on",
        "cpu:1",
        "--reference-on",
        "cpu:1",
    )
    cloud.karez(*words, "--certificate", str(paper), "--", "train.py")
    signed = json.loads(paper.read_text())
    assert signed["lossless"]
    assert signed["target"]["devices"] == ["npu"]
    with cloud.client() as client:
        ran = {j.spec.name: j.state for j in client.jobs() if j.spec.name.startswith("verify")}
    assert ran == dict.fromkeys(("verify-reference", "verify-again", "verify-target"), "succeeded")
    (after / "train.py").write_text("raise ValueError('broken on purpose')\n")
    failed = cloud.karez(*words, "--", "train.py", check=False)
    assert failed.returncode == 2
    assert "broken on purpose" in failed.stderr


def test_a_torchrun_style_gang_runs_unchanged(cloud: Cloud, tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(
        "import torch, torch.distributed as dist\n"
        "dist.init_process_group('gloo')\n"
        "x = torch.ones(1) * (dist.get_rank() + 1)\n"
        "dist.all_reduce(x)\n"
        "print('sum', x.item(), 'of', dist.get_world_size())\n"
    )
    with cloud.client() as client:
        code = client.upload(tmp_path, name="plain", kind=ArtifactKind.CODE)
        spec = batch(
            "plain",
            "python",
            "plain.py",
            code=code.id,
            kind=WorkloadKind.TRAIN,
            gang=GangSpec(min=2, want=2),
        )
        client.wait(client.submit(spec).id)
    assert cloud.karez("logs", "plain").stdout.count("sum 3.0 of 2") == 2


def test_urgent_work_makes_a_gang_yield_and_nothing_of_it_is_lost(
    cloud: Cloud, tmp_path: Path
) -> None:
    shutil.copy(Path(__file__).parent / "gang_job.py", tmp_path / "gang_job.py")
    both = GangSpec(min=2, want=2)
    steps = 400  # more than a gang completes before it is asked to yield
    with cloud.client() as client:
        code = client.upload(tmp_path, name="yielding", kind=ArtifactKind.CODE)
        spec = batch(
            "patient",
            "python",
            "gang_job.py",
            code=code.id,
            kind=WorkloadKind.TRAIN,
            gang=both,
            settings={"steps": steps, "work": 40},
            preemptible=True,
        )
        patient = client.submit(spec)
        until(lambda: client.job(patient.id).status.step >= 10)
        urgent = client.submit(batch("urgent", "true", gang=both, priority=5))
        assert client.wait(urgent.id).state == State.SUCCEEDED
        assert client.job(patient.id).status.step < steps
        done = client.wait(patient.id, limit_s=120)
        rows = client.call(calls.metrics(patient.id, -1))
    assert done.status.retries == 0
    assert done.status.ran_s > 0
    every = {(step, rank) for step in range(1, steps + 1) for rank in (0, 1)}
    assert {(row.step, row.rank) for row in rows} == every


def test_ends_have_reasons(cloud: Cloud) -> None:
    with cloud.client() as client:
        cases = {
            EndReason.USER_ERROR: batch("fails", "sh", "-c", "echo why >&2; exit 3"),
            EndReason.CRASHED: batch("crashes", "sh", "-c", "kill -9 $$"),
            EndReason.TIMED_OUT: batch("slow", "sleep", "100", max_duration_s=1.0),
        }
        for reason, spec in cases.items():
            job = client.submit(spec)
            with pytest.raises(Failed):
                client.wait(job.id)
            assert client.job(job.id).status.end == reason
        endless = client.submit(batch("endless", "sleep", "1000"))
        until(lambda: client.job(endless.id).state == State.RUNNING)
        client.call(calls.cancel(endless.id))
        until(lambda: client.job(endless.id).state == State.CANCELLED)
        too_big = client.submit(batch("big", "true", gang=GangSpec(min=99, want=99)))
        until(lambda: "of 99 workers fit" in client.job(too_big.id).status.reason)
        client.call(calls.cancel(too_big.id))


def test_an_existing_ray_cluster_is_used_and_left_as_it_was(tmp_path: Path) -> None:
    home, port = tmp_path / "home", free_port()
    home.mkdir()
    (home / "ray.token").write_text("0123456789abcdef0123456789abcdef")
    folder = tempfile.mkdtemp(prefix="kz-test-")  # Ray's socket paths must be short
    head = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "ray.scripts.scripts",
            "start",
            "--head",
            "--block",
            "--node-ip-address=127.0.0.1",
            f"--port={port}",
            "--include-dashboard=false",
            "--object-store-memory=80000000",
            "--num-cpus=2",
            f"--temp-dir={folder}",
            "--labels=karez-host=theirs",
        ],
        env={**os.environ, **ray_environment(home / "ray.token")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    theirs = psutil.Process(head.pid)
    try:
        made = make_cloud(home, KAREZ_RAY_ADDRESS=f"127.0.0.1:{port}", KAREZ_PRELOAD="false")
        made.karez("up")
        with made.client() as client:
            assert [node.id for node in client.pool()] == ["theirs"]
            client.wait(client.submit(batch("guest", "true")).id)
            client.submit(batch("endless", "sleep", "1000"))
            until(lambda: client.job("endless").state == State.RUNNING)
        made.karez("down")
        assert head.poll() is None
        alive = [p for p in theirs.children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE]
        lines = [" ".join(p.cmdline()) for p in alive]
        assert not [line for line in lines if "sleep 1000" in line or "karez.drivers" in line]
    finally:
        kill_all([*theirs.children(recursive=True), theirs])
        head.wait()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.alone
def test_the_ray_head_dies_and_a_gang_goes_on(tmp_path: Path) -> None:
    cloud = make_cloud(tmp_path / "home", KAREZ_CHECKPOINT_S="1", KAREZ_HEARTBEAT_S="1")
    cloud.karez("up")
    try:
        with cloud.client() as client:
            ground = {"steps": 600, "width": 64, "batch": 8, "pause_ms": 20.0}
            spec = JobSpec(
                name="g",
                kind=WorkloadKind.TRAIN,
                recipe="chaos-workload",
                settings=ground,
                gang=GangSpec(min=2, want=2, each=(ResourceRequest(milli=500),)),
            )
            job = client.submit(spec)
            until(lambda: client.job(job.id).status.step >= 150)
            head = psutil.Process(int(cloud.address()["parts"]["ray"]))  # type: ignore[index]
            servers = [p for p in head.children(recursive=True) if p.name() == "gcs_server"]
            kill_all([*servers, head])
            before = head.pid
            assert client.wait(job.id, limit_s=180).state == State.SUCCEEDED
            assert cloud.address()["parts"]["ray"] != before  # type: ignore[index]
            steps = {row.step for row in client.call(calls.metrics(job.id, -1)) if row.rank == 0}
            assert steps == set(range(1, 601))
            (receipt,) = client.call(calls.receipts(job.id))
            assert (receipt.rung, receipt.code) == ("restart", "control")
            assert receipt.recovery_s > receipt.resumed_at - receipt.confirmed_at  # also unwatched
            assert receipt.steps_lost <= 100
    finally:
        cloud.karez("down")


def test_a_second_cloud_from_the_same_folder_or_ports_is_refused(
    cloud: Cloud, tmp_path: Path
) -> None:
    same_folder = cloud.karez("up", check=False)
    assert same_folder.returncode == 1
    assert "already runs from" in same_folder.stderr
    other = Cloud(home=tmp_path, env={**cloud.env, "KAREZ_HOME": str(tmp_path)})
    same_ports = other.karez("up", check=False)
    assert same_ports.returncode == 1
    assert "is taken by another program" in same_ports.stderr
    assert not (tmp_path / "cloud.json").exists()


def test_what_a_model_service_cannot_load_is_a_reason(cloud: Cloud, tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"not a model")
    with cloud.client() as client:
        client.upload(tmp_path / "bad.gguf", name="bad", kind=ArtifactKind.MODEL, format="gguf")
        client.upload(tmp_path / "bad.gguf", name="odd", kind=ArtifactKind.MODEL, format="hf")
    words = ("services", "deploy", "odd", "--name", "odd", "--engine", "llamacpp")
    wrong = cloud.karez(*words, check=False)
    assert "it loads gguf, and the model has hf" in wrong.stderr
    broken = cloud.karez("services", "deploy", "bad", "--name", "bad", check=False)
    assert broken.returncode == 1
    assert "times in a row" in broken.stderr
    with cloud.client() as client, pytest.raises(NotFound, match="no artifact"):
        client.call(calls.artifact("none"))


def test_a_long_queue_waits_and_is_cancelled(cloud: Cloud) -> None:
    with cloud.client() as client:
        held = client.submit(batch("holder", "sleep", "1000", gang=GangSpec(min=2, want=2)))
        until(lambda: client.job(held.id).state == State.RUNNING)
        for number in range(200):
            client.submit(batch(f"q{number}", "true"))
        assert len(client.jobs(states=[State.QUEUED], limit=1000)) == 200
        for job in client.jobs(states=[State.QUEUED], limit=1000):
            client.call(calls.cancel(job.id))
        client.call(calls.cancel(held.id))
        until(lambda: client.job(held.id).state in ENDED)


def test_a_host_with_another_release_is_refused_and_told_so(cloud: Cloud, tmp_path: Path) -> None:
    """The release after this one, in all but its number of the protocol."""
    newer = (
        "import sys; from karez.core.messages import wire; wire.PROTOCOL += 1;"
        "from karez.server.processes.main import main; sys.argv = ['karezd', 'node'];"
        "sys.exit(main())"
    )
    told = subprocess.run(
        [sys.executable, "-c", newer],
        env={
            **os.environ,
            environment.JOIN_URL: str(cloud.address()["url"]),
            environment.JOIN_TOKEN: (cloud.home / "node.key").read_text(),
            environment.JOIN_ADDRESS: "127.0.0.1",
            environment.JOIN_NAME: "newer",
            environment.NODE_HOME: str(tmp_path / "node"),
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert told.returncode == 1
    assert "Parts of this cloud run different releases of karez" in told.stderr
    assert "`karez --version` shows the release on each host" in told.stderr
    shown = json.loads(cloud.karez("pool", "--json").stdout)
    assert "newer" not in {node["id"] for node in shown}


@pytest.mark.skipif(os.geteuid() != 0, reason="a node keeps jobs apart where it runs as root")
def test_a_hostile_job_of_another_project_gets_nothing(cloud: Cloud, tmp_path: Path) -> None:
    """As people would: two projects, their keys, a secret, and a script that is after it (C1)."""
    secret = "victim-" + secrets.token_hex(12)
    names = ("admin.key", "pepper", "karez.db", "receipts.key", "ray.token", "engine.key")
    attack = Path(__file__).parent.parent / "hostile" / "hostile_job.py"
    (tmp_path / "code").mkdir()
    shutil.copy(attack, tmp_path / "code" / "main.py")
    with cloud.client() as admin:
        (node,) = admin.pool()
        if node.isolation == Isolation.NONE:
            pytest.skip(f"jobs are {node.limits['isolation']}")
        keys = {}
        for name in ("victim", "attacker"):
            admin.add_project(Project(name=name))
            key = KeySpec(name=name, project=name, role=Role.MEMBER)
            keys[name] = admin.create_key(key).key
        admin.put_secret("victim", "HF_TOKEN", secret)
    url = str(cloud.address()["url"])
    with Client(url, keys["victim"]) as victim, Client(url, keys["attacker"]) as attacker:
        sleeps = batch("victim", "sleep", "600", project="victim", secrets=("HF_TOKEN",))
        held = victim.submit(sleeps)
        until(lambda: victim.job(held.id).state == State.RUNNING)
        code = attacker.upload(
            tmp_path / "code", name="code", kind=ArtifactKind.CODE, project="attacker"
        )
        env = {
            "TARGETS": json.dumps([str(cloud.home / name) for name in names]),
            "MARK": secrets.token_hex(8),
            "HIDDEN": str(cloud.home),
        }
        spec = batch("a", "python", "main.py", project="attacker", code=code.id, env=env)
        job = attacker.wait(attacker.submit(spec).id)
        assert job.state == State.SUCCEEDED
        said = cloud.karez("logs", job.id).stdout
        got = json.loads(said[said.index('{"targets"') :].splitlines()[0])
        assert {name: found for name, found in got.items() if found} == {}
        assert victim.job(held.id).state == State.RUNNING
        victim.cancel(held.id)
