"""The shapes of `--json`. A change in shapes.json is a change of what scripts read."""

import json
from pathlib import Path
from typing import Any

import pytest

from karez.client.sdk import Client
from karez.core.artifacts import ArtifactKind
from karez.core.jobs import JobSpec
from karez.core.services import ServiceSpec
from tests.api import Api
from tests.cli.conftest import Karez
from tests.fakes import cpu_node

SHAPES: dict[str, Any] = json.loads((Path(__file__).parent / "shapes.json").read_text())


def shape(value: Any) -> Any:
    """The same structure with names of types; a list as its first item's."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value[:1]]
    return type(value).__name__


@pytest.fixture
def busy(karez: Karez, api: Api, url: str, tmp_path: Path) -> Karez:
    """A cloud with a node, a model, a job and a service that wait."""
    api.cloud.store.pool.record_nodes([cpu_node("n", 2)], now=1.0)
    (tmp_path / "weights.bin").write_bytes(b"x")
    with Client(url, api.admin) as client:
        client.upload(tmp_path / "weights.bin", name="m", kind=ArtifactKind.MODEL, format="gguf")
        client.submit(JobSpec(name="j", command=("true",)))
        client.deploy(ServiceSpec(name="s", model="m"))
    return karez


@pytest.mark.parametrize("command", sorted(SHAPES))
def test_json_output_keeps_its_shape(busy: Karez, command: str) -> None:
    done = busy(*command.split(), "--json")
    assert done.code == 0, done.err
    assert shape(json.loads(done.out)) == SHAPES[command]
