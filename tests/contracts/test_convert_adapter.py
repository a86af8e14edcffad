"""From a tuned adapter to a model of its own name on llama.cpp, by the commands of a user."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from karez.core.artifacts import ArtifactKind
from tests.contracts.cloud import Cloud, make_cloud, until
from tests.studio.test_adapter_gguf import base, whole_llama
from tests.tiny_chat import write_adapter

pytestmark = [
    pytest.mark.deep,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),  # of peft
]
__all__ = ["base", "whole_llama"]


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    made = make_cloud(tmp_path / "home", KAREZ_CPUS="2")
    made.karez("up")
    yield made
    made.karez("down")


def test_an_adapter_is_converted_and_served_beside_its_base(
    cloud: Cloud, base: Path, tmp_path: Path
) -> None:
    adapter = write_adapter(base, tmp_path / "law")
    with cloud.client() as client:
        client.upload(base, name="base", kind=ArtifactKind.MODEL, format="hf")
        client.upload(adapter, name="law", kind=ArtifactKind.MODEL, format="peft")
    done = cloud.karez("models", "convert", "base", "--name", "base", check=False)
    if "registry" in done.stderr:
        pytest.skip("the package registry that has the converter does not answer")
    assert done.returncode == 0, done.stderr
    without = cloud.karez("models", "convert", "law", "--name", "law", check=False)
    assert without.returncode == 1
    assert "--base" in cloud.karez("logs", "law").stdout
    done = cloud.karez("models", "convert", "law", "--name", "law-2", "--base", "base", check=False)
    assert done.returncode == 0, cloud.karez("logs", "law-2").stdout
    wrong = cloud.karez(
        "services", "deploy", "base-gguf", "--name", "s", "--adapter", "law=law", check=False
    )
    assert "karez models convert law --name law --base MODEL" in wrong.stderr
    words = ("--name", "s", "--adapter", "law=law-2-gguf", "--context", "256")
    cloud.karez("services", "deploy", "base-gguf", *words)
    key = (cloud.home / "admin.key").read_text().strip()
    until(lambda: _ask(cloud, key, "law") != "")
    assert _ask(cloud, key, "s") != _ask(cloud, key, "law")


def _ask(cloud: Cloud, key: str, model: str) -> str:
    """What a model says; empty while the gateway does not know it."""
    answer = httpx.post(
        f"{cloud.address()['gateway']}/completions",
        json={"model": model, "prompt": "the capital", "max_tokens": 12, "temperature": 0},
        headers={"authorization": f"Bearer {key}"},
        timeout=60,
    )
    return str(answer.json()["choices"][0]["text"]) if answer.status_code == 200 else ""
