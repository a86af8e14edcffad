"""A name means the workload that a person sees under it."""

from dataclasses import replace

import pytest

from karez.client.sdk import Client
from karez.core.artifacts import ArtifactKind
from karez.core.codec import from_text, to_text
from karez.core.errors import AmbiguousName, BadRequest, NotFound
from karez.core.identity import Project, Role
from karez.core.jobs import JobSpec
from karez.core.routing import GatewayLoad, ServiceLoad
from karez.core.services import ServiceSpec
from karez.core.workloads import State
from karez.serving.service_loads import ServiceLoads
from tests.api import Api

REFUSED = r"(?i)is set by the cloud|no name of an environment"


def run(name: str = "j") -> JobSpec:
    return JobSpec(name=name, command=("true",))


def test_a_live_job_is_meant_before_one_that_has_ended(api: Api, url: str) -> None:
    with Client(url, api.admin) as client:
        old, new = client.submit(run()), client.submit(run())
        with pytest.raises(AmbiguousName, match=f"{new.id} .queued., {old.id} .queued.") as error:
            client.cancel("j")
        assert error.value.hint() == "Give the id of the one that you mean."
        assert client.cancel(new.id).state == State.CANCELLED
        assert client.job("j").id == old.id  # the newest one has ended
        assert client.cancel("j").id == old.id
        assert client.job("j").id == new.id  # all have: the newest
        for ask in (client.why, client.receipts, client.metrics):
            assert ask("j") is not None


def test_other_projects_do_not_hide_a_name(api: Api, url: str) -> None:
    api.cloud.access.add_project(Project(name="other"))
    foreigner = api.key(Role.MEMBER, "other")
    with Client(url, api.key(Role.MEMBER)) as mine, Client(url, foreigner) as its:
        own, foreign = mine.submit(run()), its.submit(run())
        assert foreign.spec.project == "other"
        assert (mine.job("j").id, its.job("j").id) == (own.id, foreign.id)
        with pytest.raises(NotFound):
            mine.job(foreign.id)
        its.put_secret("default", "TOKEN", "x")
        assert its.secrets("other") == its.secrets("default") == ["TOKEN"]
        assert mine.secrets("default") == []


def test_an_artifact_of_another_project_does_not_hide_ones_own(
    api: Api, url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    api.cloud.access.add_project(Project(name="other"))
    folder = tmp_path_factory.mktemp("files")
    (folder / "a").write_text("a")
    foreigner = api.key(Role.MEMBER, "other")
    with Client(url, api.key(Role.MEMBER)) as mine, Client(url, foreigner) as its:
        own = mine.upload(folder, name="c", kind=ArtifactKind.CODE)
        assert its.upload(folder, name="c", kind=ArtifactKind.CODE).spec.project == "other"
        assert mine.artifact("c").id == own.id


@pytest.mark.parametrize(
    ("format", "words"),
    [
        ("hf", "`karez models convert m --name m`; deploy m-gguf"),
        ("peft", "Name a model that one of them loads"),
    ],
)
def test_what_an_engine_cannot_load_is_refused_at_once_with_what_helps(
    api: Api, url: str, tmp_path_factory: pytest.TempPathFactory, format: str, words: str
) -> None:
    folder = tmp_path_factory.mktemp("files")
    (folder / "w").write_text("w")
    with Client(url, api.admin) as client:
        client.upload(folder, name="m", kind=ArtifactKind.MODEL, format=format)
        with pytest.raises(BadRequest, match=f"loads gguf, and the model has {format}") as error:
            client.deploy(ServiceSpec(name="s", model="m"))
        assert words in error.value.hint()
        with pytest.raises(BadRequest, match="there are: llamacpp"):
            client.deploy(ServiceSpec(name="s", model="m", engine="vllm"))
        assert client.services() == []


@pytest.mark.parametrize(
    "name", ["RANK", "WORLD_SIZE", "MASTER_PORT", "KAREZ_OUT", "CUDA_VISIBLE_DEVICES", "", "A=B"]
)
def test_variables_that_the_cloud_sets_are_not_replaced_unseen(
    api: Api, url: str, name: str
) -> None:
    with Client(url, api.admin) as client:
        for more in ({"env": {name: "1"}}, {"secrets": (name,)}):
            with pytest.raises(BadRequest, match=REFUSED):
                client.submit(replace(run(), **more))
    stored = JobSpec(name="j", command=("true",), env={name: "1"})  # by an earlier release
    assert from_text(JobSpec, to_text(stored)) == stored


def test_why_says_what_is_in_flight_for_a_service(api: Api) -> None:
    loads, now = ServiceLoads(), 100.0
    load = ServiceLoad(service="chat", project="p", inflight=6, slots=4, refused=3)
    loads.record(GatewayLoad(services=(load,)), now)
    said = "4 of 4 requests at once are answered, 2 wait; 3 were refused so far"
    assert loads.describe("p", "chat", now + 5) == said
    assert loads.describe("p", "other", now) == loads.describe("q", "chat", now) == ""
    assert loads.describe("p", "chat", now + 60) == ""  # the gateway has gone
    member = api.key(Role.MEMBER)
    assert api.ask("POST", "/gateway/load", member, json={}).status_code == 403
