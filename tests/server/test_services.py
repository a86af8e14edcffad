"""Services through the API: their bounds, and changes while they serve."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from karez.client.sdk import Client
from karez.core.artifacts import ArtifactKind
from karez.core.errors import BadRequest, LimitExceeded
from karez.core.services import Service, ServiceSpec
from tests.api import Api


@pytest.fixture
def client(api: Api, url: str, tmp_path: Path) -> Iterator[Client]:
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "w.gguf").write_text("w")
    with Client(url, api.admin) as made:
        for name, format in (("one", "gguf"), ("two", "gguf"), ("folder", "hf")):
            made.upload(folder, name=name, kind=ArtifactKind.MODEL, format=format)
        yield made


@pytest.fixture
def service(client: Client) -> Service:
    return client.deploy(ServiceSpec(name="s", model="one"))


def test_an_update_changes_the_specification_and_keeps_the_service(
    client: Client, service: Service
) -> None:
    spec = replace(service.spec, model="two", replicas=2, min_replicas=0, max_replicas=4)
    updated = client.update_service("s", spec)
    assert (updated.id, updated.spec.range) == (service.id, "0..4")
    assert updated.spec.model != service.spec.model
    assert client.service("s").spec == updated.spec
    assert client.update_service("s", updated.spec).spec == updated.spec


def test_what_an_update_cannot_be_is_refused_and_nothing_changes(
    client: Client, service: Service
) -> None:
    for other, said in (
        (replace(service.spec, name="t"), "cannot be renamed"),
        (replace(service.spec, model="folder"), "loads gguf"),
        (replace(service.spec, engine="vllm"), "no engine 'vllm'"),
    ):
        with pytest.raises(BadRequest, match=said):
            client.update_service("s", other)
    assert client.service("s").spec == service.spec
    client.stop_service("s")
    with pytest.raises(BadRequest, match="is to stop, has ended"):
        client.update_service(service.id, replace(service.spec, replicas=2))


def test_the_most_replicas_of_all_services_count_and_an_update_counts_once(
    client: Client, service: Service
) -> None:
    most = replace(service.spec, max_replicas=256)
    assert client.update_service("s", most).spec.most == 256
    assert client.update_service("s", most).spec.most == 256
    with pytest.raises(LimitExceeded, match="256 replicas"):
        client.update_service("s", replace(most, max_replicas=257))
    with pytest.raises(LimitExceeded, match="256 replicas"):
        client.deploy(replace(service.spec, name="t"))
