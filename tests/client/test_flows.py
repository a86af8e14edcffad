"""wait, wait_ready, follow_logs and upload, the same on both clients."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from karez.core.artifacts import ArtifactKind
from karez.core.codec import to_json
from karez.core.errors import BadRequest, Failed, Unreachable
from karez.core.jobs import Job, JobSpec
from karez.core.nodes import NodeId
from karez.core.services import Service, ServiceSpec
from karez.core.workloads import EndReason, RankView, State, Status, WorkloadId
from tests.api import Api
from tests.client.conftest import Asker

JOB = Job(id=WorkloadId("job-1"), spec=JobSpec(name="x", command=("true",)))
SERVICE = Service(id=WorkloadId("svc-1"), spec=ServiceSpec(name="s", model="m", replicas=2))


class Script:
    """Answers each request with the next value; the last value repeats."""

    def __init__(self, *values: object) -> None:
        self.values = [to_json(value) for value in values]
        self.asked = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        value = self.values[min(self.asked, len(self.values) - 1)]
        self.asked += 1
        return httpx.Response(200, json=value)


def job(state: State, **status: Any) -> Job:
    return replace(JOB, state=state, status=Status(**status))


def service(*states: str, state: State = State.RUNNING, reason: str = "") -> Service:
    ranks = tuple(
        RankView(rank=rank, node=NodeId("n"), state=one) for rank, one in enumerate(states)
    )
    return replace(SERVICE, state=state, status=Status(ranks=ranks, reason=reason))


def test_wait_polls_until_the_job_has_ended(asker: Asker) -> None:
    cloud = Script(job(State.QUEUED), job(State.RUNNING), job(State.SUCCEEDED))
    seen: list[State] = []
    ended = asker.ask(cloud, "wait", "x", watch=lambda one: seen.append(one.state))
    assert ended.state == State.SUCCEEDED
    assert seen == [State.QUEUED, State.RUNNING, State.SUCCEEDED]
    assert asker.at == pytest.approx(0.5)


def test_wait_tells_why_a_job_failed(asker: Asker) -> None:
    bad = job(State.FAILED, end=EndReason.CRASHED, reason="killed by signal 9")
    with pytest.raises(Failed, match="The job 'x' failed: crashed: killed by signal 9"):
        asker.ask(Script(bad), "wait", "job-1")


def test_wait_ends_at_its_limit(asker: Asker) -> None:
    with pytest.raises(Failed, match="not done after 3 s"):
        asker.ask(Script(job(State.RUNNING)), "wait", "x", limit_s=3.0)
    assert 3.0 < asker.at < 3.6


def test_wait_ready_needs_every_replica(asker: Asker) -> None:
    cloud = Script(service("starting", "ready"), service("ready", "ready"))
    assert len(asker.ask(cloud, "wait_ready", "s").status.ranks) == 2
    assert cloud.asked == 2
    with pytest.raises(Failed, match="not ready after 5 s"):
        asker.ask(Script(service("ready", "starting")), "wait_ready", "s", limit_s=5.0)
    ended = service(state=State.FAILED, reason="the weights are broken")
    with pytest.raises(Failed, match="the weights are broken"):
        asker.ask(Script(ended), "wait_ready", "s")


class Logs:
    """A job that writes one line per poll, and ends after the last text."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts
        self.polls = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/logs"):
            return httpx.Response(200, json=["rank-0.log"])
        if "/logs/" in request.url.path:
            whole = "".join(self.texts[: self.polls])
            offset = int(request.url.params["offset"])
            piece = {
                "name": "rank-0.log",
                "text": whole[offset:],
                "next": len(whole),
                "size": len(whole),
            }
            return httpx.Response(200, json=piece)
        self.polls += 1
        over = self.polls >= len(self.texts)
        state = State.SUCCEEDED if over else State.RUNNING
        if "/services/" in request.url.path:
            return httpx.Response(200, json=to_json(replace(SERVICE, state=state)))
        return httpx.Response(200, json=to_json(replace(JOB, state=state)))


@pytest.mark.parametrize("noun", ["jobs", "services"])
def test_follow_logs_continues_at_its_offset_until_the_workload_ends(
    asker: Asker, noun: str
) -> None:
    pieces = asker.ask(Logs(["a\n", "b\n", "c\n"]), "follow_logs", noun, "x", follow=True)
    assert pieces == [("rank-0.log", "a\n"), ("rank-0.log", "b\n"), ("rank-0.log", "c\n")]
    assert asker.at == pytest.approx(1.0)


def test_logs_without_follow_return_what_is_there(asker: Asker) -> None:
    pieces = asker.ask(Logs(["a\n", "b\n"]), "follow_logs", "jobs", "x", follow=False)
    assert pieces == [("rank-0.log", "a\n")]
    assert asker.at == 0.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    code = tmp_path / "code"
    (code / ".git").mkdir(parents=True)
    (code / "pkg").mkdir()
    (code / ".git" / "config").write_text("secret")
    (code / "train.py").write_bytes(b"x" * (3 << 20))
    (code / "pkg" / "a.py").write_text("a")
    return code


def test_an_upload_sends_each_file_once(asker: Asker, api: Api, url: str, folder: Path) -> None:
    def upload(name: str) -> Any:
        return asker.ask_at(
            url, api.admin, "upload", folder, name=name, kind=ArtifactKind.CODE, source="here"
        )

    def sent() -> int:
        rows = asker.ask_at(url, api.admin, "audit", limit=1000)
        return sum(row.action.startswith("PUT /blobs/") for row in rows)

    made = upload("code")
    assert [file.path for file in made.spec.files] == ["pkg/a.py", "train.py"]
    assert (made.spec.project, made.spec.lineage.source) == ("default", "here")
    assert sent() == 2
    assert asker.ask_at(url, api.admin, "artifact_file", "code", "train.py") == b"x" * (3 << 20)
    upload("again")
    assert sent() == 2
    (folder / "pkg" / "a.py").write_text("b")
    upload("changed")
    assert sent() == 3


def test_one_file_is_an_artifact_too(asker: Asker, api: Api, url: str, folder: Path) -> None:
    made = asker.ask_at(
        url, api.admin, "upload", str(folder / "train.py"), name="one", kind=ArtifactKind.CODE
    )
    assert [file.path for file in made.spec.files] == ["train.py"]


def test_nothing_to_upload_is_a_bad_request(asker: Asker, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="There are no files at"):
        asker.ask(Script(True), "upload", tmp_path / "no", name="x", kind=ArtifactKind.CODE)


def test_a_lost_connection_restarts_the_upload_of_that_file(asker: Asker, folder: Path) -> None:
    bodies: list[tuple[int, str]] = []

    def cloud(request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path.endswith("/missing"):
            return httpx.Response(200, content=request.content)
        if request.method == "PUT":
            bodies.append((len(request.content), request.headers["content-length"]))
            if len(bodies) == 2:
                raise httpx.ReadError("reset", request=request)
            digest = path.rsplit("/", 1)[-1]
            entry = {"path": "x", "sha256": digest, "size_bytes": 1}
            return httpx.Response(201, json=entry)
        spec = json.loads(request.content)
        artifact = {"id": "art-1", "spec": spec, "size_bytes": 1, "created_at": 0.0}
        return httpx.Response(201, json=artifact)

    made = asker.ask(cloud, "upload", folder, name="x", kind=ArtifactKind.CODE)
    assert made.id == "art-1"
    assert bodies == [(1, "1"), (3 << 20, str(3 << 20)), (3 << 20, str(3 << 20))]


def test_an_upload_without_a_cloud_raises_unreachable(asker: Asker, folder: Path) -> None:
    def nobody(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(Unreachable):
        asker.ask(nobody, "upload", folder, name="x", kind=ArtifactKind.CODE)
