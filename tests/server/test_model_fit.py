"""Engines that are chosen, models that do not fit, and adapters, through the API."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from karez.client.sdk import Client
from karez.core.artifacts import ArtifactKind
from karez.core.engines import Adapter, Preference, Task
from karez.core.errors import AlreadyExists, BadRequest
from karez.core.resource_requests import ResourceRequest
from karez.core.services import ServiceSpec
from karez.core.units import MILLI
from karez.core.workloads import State, Status
from karez.server.services.gateway_table import build_gateway_table
from tests.api import Api
from tests.tiny_model import write_tiny_model

MIB = 1 << 20
WHY = "engine llamacpp: no other can (transformers: it loads hf, and the model has gguf)"


@pytest.fixture
def client(api: Api, url: str, tmp_path: Path) -> Iterator[Client]:
    """A client of a cloud with a GGUF model, an adapter of it, and a folder of one layer."""
    with Client(url, api.admin) as made:
        write_tiny_model(tmp_path / "m.gguf")
        for name, format in (("m", "gguf"), ("lora", "gguf-lora"), ("peft", "peft")):
            made.upload(tmp_path / "m.gguf", name=name, kind=ArtifactKind.MODEL, format=format)
        yield made


def asking(memory_mib: int) -> tuple[ResourceRequest, ...]:
    return (ResourceRequest(milli=MILLI, memory_bytes=memory_mib * MIB),)


def test_the_engine_is_chosen_and_told(client: Client) -> None:
    service = client.deploy(ServiceSpec(name="s", model="m"))
    assert service.spec.engine == "llamacpp"
    assert service.status.notices == (WHY,)
    again = client.update_service("s", replace(service.spec, engine="auto"))
    assert again.spec == service.spec
    assert again.revision == service.revision + 1


def test_what_does_not_fit_is_refused_with_what_would(client: Client) -> None:
    spec = ServiceSpec(name="s", model="m", each=asking(100), context_tokens=65_536, parallel=16)
    with pytest.raises(BadRequest, match=r"odel m does not fit: engine llamacpp needs .*KV cache"):
        client.deploy(spec)
    report = client.fit_service(spec)
    (fit,) = report.fits
    assert not fit.is_enough
    assert fit.room_bytes == 100 * MIB
    _, context, _, parallel = fit.nearest.split()
    smaller = replace(spec, context_tokens=int(context), parallel=int(parallel))
    assert client.deploy(smaller).spec.parallel == int(parallel)


def test_alternatives_without_room_are_left_out_and_told(client: Client) -> None:
    spec = ServiceSpec(name="s", model="m", each=(*asking(1), *asking(200)))
    service = client.deploy(spec)
    assert service.spec.each == asking(200)
    assert "without 1 cpu + 1.0 MiB, which has no room" in service.status.notices[0]
    again = client.update_service("s", spec)
    assert again.spec == service.spec
    assert again.status.progress is None  # nothing is replaced


def test_another_preference_and_other_numbers_replace_nothing(client: Client) -> None:
    service = client.deploy(ServiceSpec(name="s", model="m"))
    for change in ({"prefer": Preference.THROUGHPUT}, {"replicas": 2, "max_replicas": 3}):
        changed = client.update_service("s", replace(service.spec, **change))
        assert (changed.spec.engine, changed.status.progress) == ("llamacpp", None)


@pytest.mark.parametrize("engine", ["nope", "llamacpp"])
def test_an_engine_that_cannot_is_refused_before_too(client: Client, engine: str) -> None:
    with pytest.raises(BadRequest, match=r"o engine 'nope'|ngine llamacpp cannot serve this"):
        client.fit_service(ServiceSpec(name="s", model="peft", engine=engine))


def test_weights_are_counted_once(client: Client, tmp_path: Path) -> None:
    folder = tmp_path / "twice"
    (folder / "onnx").mkdir(parents=True)
    config = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "float32"}))
    for name in ("model.safetensors", "pytorch_model.bin", "onnx/model.bin"):
        (folder / name).write_bytes(name.encode() * 4)
    client.upload(folder, name="twice", kind=ArtifactKind.MODEL, format="hf")
    spec = ServiceSpec(name="s", model="twice", engine="transformers")
    parts = {part.what: part.bytes for part in client.fit_service(spec).fits[0].parts}
    assert parts["weights"] == 4 * len("model.safetensors")


def test_what_replicas_took_is_learnt(api: Api, client: Client) -> None:
    service = client.deploy(ServiceSpec(name="s", model="m", each=asking(400)))
    before = client.fit_service(service.spec).fits[0].need_bytes
    store = api.cloud.store
    (replica,) = store.replicas.add(service, 1, now=1.0)
    measured = Status(memory_bytes=2 * before)
    assert store.workloads.update(replica.id, state=State.RUNNING, status=measured, at=2.0)
    after = client.fit_service(service.spec).fits[0]
    assert after.need_bytes == pytest.approx(2 * before, rel=0.01)
    assert after.parts[-1].what == "measured on 1 replica"


def test_a_model_that_tells_nothing_is_deployed_all_the_same(
    client: Client, tmp_path: Path
) -> None:
    (tmp_path / "w.gguf").write_text("no gguf")
    client.upload(tmp_path / "w.gguf", name="odd", kind=ArtifactKind.MODEL, format="gguf")
    report = client.fit_service(ServiceSpec(name="s", model="odd"))
    assert (report.fits, report.engine) == ((), "llamacpp")
    assert "header" in report.unknown or "GGUF" in report.unknown
    assert client.deploy(ServiceSpec(name="s", model="odd"))


def test_adapters_are_models_of_their_own_at_the_gateway(api: Api, client: Client) -> None:
    adapters = (Adapter(name="law", model="lora"), Adapter(name="med", model="lora"))
    service = client.deploy(ServiceSpec(name="s", model="m", adapters=adapters))
    ident = client.artifact("lora").id
    assert {adapter.model for adapter in service.spec.adapters} == {ident}
    table = build_gateway_table(api.cloud.store, 1.0, api.cloud.services.engines)
    told = {route.service: (route.base, route.scales) for route in table.routes}
    assert told == {"s": ("", (0.0, 0.0)), "law": ("s", (1.0, 0.0)), "med": ("s", (0.0, 1.0))}
    with pytest.raises(BadRequest, match="in use by s"):
        client.remove_artifact("lora")


@pytest.mark.parametrize(
    "other",
    [
        ServiceSpec(name="law", model="m"),
        ServiceSpec(name="t", model="m", adapters=(Adapter(name="law", model="lora"),)),
        ServiceSpec(name="t", model="m", adapters=(Adapter(name="s", model="lora"),)),
    ],
)
def test_a_name_at_the_gateway_means_one_model(client: Client, other: ServiceSpec) -> None:
    client.deploy(ServiceSpec(name="s", model="m", adapters=(Adapter(name="law", model="lora"),)))
    with pytest.raises(AlreadyExists, match="There is a model"):
        client.deploy(other)


def test_an_adapter_in_another_format_is_refused(client: Client) -> None:
    spec = ServiceSpec(name="s", model="m", adapters=(Adapter(name="law", model="peft"),))
    with pytest.raises(BadRequest, match="as gguf-lora, not peft") as error:
        client.deploy(spec)
    assert "karez models convert peft --name peft --base MODEL" in error.value.hint()


@pytest.mark.parametrize(
    "fields",
    [
        {"adapters": (Adapter(name="s", model="m"),)},
        {"adapters": (Adapter(name="a", model="m"), Adapter(name="a", model="n"))},
        {"task": Task.EMBED, "adapters": (Adapter(name="a", model="m"),)},
    ],
)
def test_adapters_need_a_name_each_and_a_model_of_text(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"name each|generates text"):
        ServiceSpec(name="s", model="m", **fields)


def test_the_shape_of_a_folder_is_read_from_its_config(client: Client, tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    folder.mkdir()
    config = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"x" * 64)
    client.upload(folder, name="hf", kind=ArtifactKind.MODEL, format="hf")
    spec = ServiceSpec(name="s", model="hf", context_tokens=128, parallel=2)
    with pytest.raises(BadRequest, match=r"No engine can serve this.*which is not installed"):
        client.fit_service(spec)
    (fit,) = client.fit_service(replace(spec, engine="transformers")).fits
    parts = {part.what: part.bytes for part in fit.parts}
    assert parts["weights"] == 64  # of a type that nobody told
    assert parts["KV cache"] == 2 * 2 * 8 * 4 * 128 * 2
