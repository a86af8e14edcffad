"""llama.cpp and OpenVINO as processes, with one GGUF file."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gguf
import httpx
import numpy as np
import pytest

from karez.core.engines import EngineLaunch
from karez.engines.openvino import OpenVino
from tests.engines.running_engine import events, running_engine
from tests.tiny_bpe_model import WIDTH, write_tiny_bpe_model

pytestmark = pytest.mark.story
LLAMACPP, OPENVINO = "karez.engines.llamacpp_process", "karez.engines.openvino_process"
LAUNCH = EngineLaunch(alias="m", tokens=128, parallel=4)
PROMPTS = [f"{number} is what comes" for number in range(8)]


def write_lora(folder: Path) -> Path:
    """A LoRA of one matrix, as llama.cpp's converter writes it."""
    folder.mkdir()
    chance = np.random.default_rng(1)
    writer = gguf.GGUFWriter(str(folder / "lora.gguf"), "llama")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, 64.0)
    for end in "ab":
        shape = (4, WIDTH) if end == "a" else (WIDTH, 4)
        weights = chance.normal(0, 1, shape).astype(np.float32)
        writer.add_tensor(f"blk.0.attn_output.weight.lora_{end}", weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_tiny_bpe_model(folder / "m.gguf", 128)
    return folder


@pytest.fixture(scope="module")
def llamacpp(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    lora = write_lora(tmp_path_factory.mktemp("lora") / "law")
    launch = EngineLaunch(alias="m", tokens=128, parallel=4, adapters=("law",))
    folder = tmp_path_factory.mktemp("engine")
    with running_engine(LLAMACPP, model, launch, folder, adapters=(lora,)) as client:
        yield client


@pytest.fixture(scope="module")
def openvino(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with running_engine(OPENVINO, model, LAUNCH, tmp_path_factory.mktemp("engine")) as client:
        yield client


def said(client: httpx.Client, prompt: str, **more: Any) -> str:
    body = {"model": "m", "prompt": prompt, "max_tokens": 8, "temperature": 0, **more}
    answer = client.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["text"])


def scales(scale: float) -> dict[str, Any]:
    return {"lora": [{"id": 0, "scale": scale}]}


def test_an_adapter_answers_where_its_scale_says_so(llamacpp: httpx.Client) -> None:
    plain = [said(llamacpp, prompt, **scales(0.0)) for prompt in PROMPTS]
    adapted = [said(llamacpp, prompt, **scales(1.0)) for prompt in PROMPTS]
    assert sum(a != b for a, b in zip(plain, adapted, strict=True)) > len(PROMPTS) / 2
    assert [said(llamacpp, prompt) for prompt in PROMPTS] == plain  # as readiness and probes ask
    with ThreadPoolExecutor(len(PROMPTS)) as callers:  # beside one another
        mixed = list(
            callers.map(
                lambda pair: said(llamacpp, pair[1], **scales(pair[0] % 2)), enumerate(PROMPTS)
            )
        )
    assert mixed == [(adapted if n % 2 else plain)[n] for n in range(len(PROMPTS))]


def test_two_engines_say_the_same_of_one_file(
    llamacpp: httpx.Client, openvino: httpx.Client
) -> None:
    expected = [said(llamacpp, prompt, **scales(0.0)) for prompt in PROMPTS]
    with ThreadPoolExecutor(len(PROMPTS)) as callers:
        found = list(callers.map(lambda prompt: said(openvino, prompt), PROMPTS))
    shown = [text.replace("\ufffd", "") for text in expected]  # OpenVINO leaves broken bytes out
    same = sum(a[:3] == b[:3] for a, b in zip(shown, found, strict=True))
    assert same >= len(PROMPTS) - 1  # random weights in half precision


def test_openvinos_tokenizer_is_asked_by_many_at_once(openvino: httpx.Client) -> None:
    """Two calls at once once waited for one another, and for Python's lock, for ever."""
    with ThreadPoolExecutor(16) as callers:
        texts = list(callers.map(lambda n: said(openvino, f"{n} is", max_tokens=2), range(200)))
    assert len(texts) == 200


def test_openvino_streams_and_refuses_in_openais_form(openvino: httpx.Client) -> None:
    messages = [{"role": "user", "content": "hello"}]
    body = {"model": "m", "messages": messages, "max_tokens": 9, "temperature": 0}
    path = "/v1/chat/completions"
    whole = openvino.post(path, json=body).json()
    found = events(openvino.post(path, json={**body, "stream": True}))
    pieces = [one["choices"][0]["delta"].get("content", "") for one in found]
    assert "".join(pieces) == whole["choices"][0]["message"]["content"]
    begun = [*messages, {"role": "assistant", "content": pieces[1]}]
    rest = openvino.post(path, json={**body, "messages": begun}).json()
    assert rest["usage"]["prompt_tokens"] > whole["usage"]["prompt_tokens"]
    for bad in ({"top_p": 0}, {"temperature": 1e-300}, {"tools": [1]}):
        assert openvino.post(path, json={**body, **bad}).status_code in (200, 400)
    empty = openvino.post(path, json={**body, "messages": [{"role": "assistant"}]})
    assert (empty.status_code, "content" in empty.text) == (400, True)
    schema = {"type": "json_schema", "json_schema": {"schema": {"type": "no-such-type"}}}
    refused = openvino.post(path, json={**body, "response_format": schema})
    assert (refused.status_code, "no JSON schema" in refused.text) == (400, True)
    assert not OpenVino.capabilities.has_schemas


def test_whoever_leaves_openvino_makes_room(openvino: httpx.Client) -> None:
    body = {"model": "m", "prompt": "x", "max_tokens": 120, "ignore_eos": True, "stream": True}
    for _ in range(3 * LAUNCH.parallel):
        with openvino.stream("POST", "/v1/completions", json=body) as answer:
            assert next(answer.iter_lines()).startswith("data: {")
    seeds = [said(openvino, "x", temperature=1.0, seed=seed) for seed in (3, 3)]
    assert seeds[0] == seeds[1]
