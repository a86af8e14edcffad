"""The transformers engine as a process, on the CPU and on an emulated NPU."""

import json
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertForSequenceClassification,
    BertModel,
    MambaConfig,
    MambaForCausalLM,
)

from karez.core import environment
from karez.core.engines import EngineLaunch, Task
from karez.engines.pooled_classifier import PooledClassifier
from karez.runtime.device import CPU, computing_dtype
from tests.engines.running_engine import events, running_engine
from tests.tiny_bert import write_tiny_bert
from tests.tiny_chat import write_tiny_chat

pytestmark = [
    pytest.mark.story,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),  # of peft
]
MODULE = "karez.engines.transformers_process"
ON_NPU = {
    environment.EMUNPU: "1",
    environment.DEVICE: "npu",
    "ASCEND_RT_VISIBLE_DEVICES": "0",
}
DEVICES: Mapping[str, Mapping[str, str]] = {"cpu": {}, "npu": ON_NPU}
PROMPTS = [f"{number} is what comes" for number in range(6)]
LENGTH = 24
SCHEMA = {
    "type": "object",
    "properties": {"port": {"type": "integer"}, "kind": {"enum": ["tcp", "udp"]}},
    "required": ["port", "kind"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny chat model, and two adapters of it that change what it says."""
    made = {"model": write_tiny_chat(tmp_path_factory.mktemp("model"))}
    for seed, name in enumerate(("loud", "quiet.v1"), 1):
        torch.manual_seed(seed)
        base = AutoModelForCausalLM.from_pretrained(made["model"])
        config = LoraConfig(
            r=4, lora_alpha=64, target_modules="all-linear", init_lora_weights=False
        )
        made[name] = tmp_path_factory.mktemp(name.replace(".", "-"))
        get_peft_model(base, config).save_pretrained(made[name])
    return made


@pytest.fixture(scope="module", params=list(DEVICES))
def engine(
    request: pytest.FixtureRequest,
    folders: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[httpx.Client]:
    """A running engine on each kind of device."""
    launch = EngineLaunch(alias="chat", tokens=128, parallel=4, adapters=("loud", "quiet.v1"))
    with running_engine(
        MODULE,
        folders["model"],
        launch,
        tmp_path_factory.mktemp("engine"),
        adapters=(folders["loud"], folders["quiet.v1"]),
        env=DEVICES[request.param],
    ) as client:
        client.headers["x-device"] = request.param
        yield client


def said(client: httpx.Client, prompt: Any, model: str = "chat", **more: Any) -> str:
    body = {"model": model, "prompt": prompt, "max_tokens": LENGTH, "temperature": 0}
    answer = client.post("/v1/completions", json={**body, **more})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["text"])


def expected(model: Any, tokenizer: Any, prompt: str) -> str:
    inputs = tokenizer(prompt, return_tensors="pt")
    tokens = model.generate(**inputs, max_new_tokens=LENGTH, do_sample=False, pad_token_id=2)
    return str(
        tokenizer.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    )


def test_many_callers_get_what_the_model_says_to_each_alone(
    engine: httpx.Client, folders: dict[str, Path]
) -> None:
    """Beside one another, of the base and of two adapters."""
    tokenizer = AutoTokenizer.from_pretrained(folders["model"])
    is_npu = engine.headers["x-device"] == "npu"
    dtype = torch.bfloat16 if is_npu else computing_dtype(CPU)
    prompts = PROMPTS[:2] if is_npu else PROMPTS
    wanted: dict[tuple[str, str], str] = {}
    for name in ("chat", "loud", "quiet.v1"):
        model = AutoModelForCausalLM.from_pretrained(folders["model"], dtype=dtype)
        if name != "chat":
            model.load_adapter(str(folders[name]))
        wanted |= {(name, one): expected(model, tokenizer, one) for one in prompts}
    asked = sorted(wanted, key=lambda pair: (pair[1], pair[0]))
    with ThreadPoolExecutor(len(asked)) as callers:
        length = 6 if is_npu else LENGTH
        answers = callers.map(lambda pair: said(engine, pair[1], pair[0], max_tokens=length), asked)
        found = dict(zip(asked, answers, strict=True))
    assert len(set(wanted.values())) > len(prompts)  # the adapters do change it
    if dtype != torch.float32:  # a batch rounds otherwise, and random weights part ways soon
        same = [found[one][:3] == wanted[one][:3] for one in asked]
        assert sum(same) >= 0.8 * len(same)
    else:
        assert found == wanted


def test_a_stream_is_the_answer_in_pieces(engine: httpx.Client) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]
    body = {"model": "chat", "messages": messages, "max_tokens": 9, "temperature": 0}
    whole = engine.post("/v1/chat/completions", json=body).json()
    more = {"stream": True, "stream_options": {"include_usage": True}}
    found = events(engine.post("/v1/chat/completions", json={**body, **more}))
    choices = [one["choices"][0] for one in found if one["choices"]]
    text = "".join(one["delta"].get("content", "") for one in choices)
    assert text == whole["choices"][0]["message"]["content"]
    assert choices[-1]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert found[-1]["usage"] == whole["usage"]
    assert whole["usage"]["completion_tokens"] <= 9


def test_an_answer_that_was_begun_goes_on(engine: httpx.Client) -> None:
    """As another replica is asked for the rest of a stream."""
    hello = {"role": "user", "content": "hello"}
    begun = {"model": "chat", "max_tokens": 12, "temperature": 0, "ignore_eos": True}
    tokens = engine.post("/tokenize", json={"content": "user: hello\nassistant: "}).json()["tokens"]
    whole = said(engine, tokens, max_tokens=12, ignore_eos=True)
    path = "/v1/chat/completions"
    first = engine.post(path, json={**begun, "messages": [hello]}).json()
    assert first["choices"][0]["message"]["content"] == whole
    text = re.sub("\ufffd.*", "", whole, flags=re.DOTALL)[:4]
    rest = [hello, {"role": "assistant", "content": text}]
    answer = engine.post(path, json={**begun, "messages": rest, "max_tokens": 2}).json()
    assert answer["usage"]["prompt_tokens"] >= first["usage"]["prompt_tokens"]


def test_an_answer_keeps_to_a_schema(engine: httpx.Client) -> None:
    """Drawn at random from random weights: nothing but the schema makes it JSON."""
    form = {"type": "json_schema", "json_schema": {"name": "endpoint", "schema": SCHEMA}}
    for seed in range(1 if engine.headers["x-device"] == "npu" else 4):
        text = said(engine, "{", response_format=form, temperature=1.0, seed=seed, max_tokens=100)
        try:
            found = json.loads(text)
        except ValueError:  # it wrote spaces until its end
            assert re.fullmatch(r'\s*\{[\s"portkind:,0-9tcpu}-]*', text), text
            continue
        assert set(found) == {"port", "kind"}
        assert type(found["port"]) is int
        assert found["kind"] in ("tcp", "udp")


def test_a_seed_gives_the_same_text_again(engine: httpx.Client) -> None:
    texts = [said(engine, "x", temperature=1.0, top_p=0.9, seed=seed) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_a_stop_ends_an_answer_and_is_not_said(engine: httpx.Client) -> None:
    whole = said(engine, "go on", ignore_eos=True)
    stop = whole[5:7]
    assert said(engine, "go on", ignore_eos=True, stop=[stop]) == whole[: whole.index(stop)]


def test_whoever_hangs_up_makes_room(engine: httpx.Client) -> None:
    body = {"model": "chat", "prompt": "x", "max_tokens": 100, "ignore_eos": True, "stream": True}
    for _ in range(12):  # three times as many as are answered at once
        with engine.stream("POST", "/v1/completions", json=body) as answer:
            assert next(answer.iter_lines()).startswith("data: {")
    assert said(engine, PROMPTS[0])


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/v1/completions", {"prompt": "x " * 200}, 400, "context of this model is 128"),
        ("/v1/completions", {"prompt": 7}, 400, "prompt is one text"),
        ("/v1/completions", {"prompt": [10**6]}, 400, "tokens of this model are from 0 to"),
        ("/v1/completions", {"prompt": [-1]}, 400, "tokens of this model are from 0 to"),
        ("/v1/completions", {"prompt": ""}, 400, "prompt is empty"),
        ("/v1/completions", {"prompt": ["a", "b"]}, 400, "prompt is one text"),
        ("/v1/chat/completions", {"messages": []}, 400, "messages is a list"),
        ("/v1/chat/completions", {"messages": [{"content": "x"}]}, 400, "has a role"),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            400,
            "text alone",
        ),
        ("/v1/completions", {"prompt": "x", "response_format": 1}, 400, "response_format is"),
        (
            "/v1/completions",
            {
                "prompt": "x",
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"schema": {"type": "no-such-type"}},
                },
            },
            400,
            "schema cannot be kept to",
        ),
        ("/v1/embeddings", {"input": "x"}, 404, "has no /v1/embeddings"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_openais_form(
    engine: httpx.Client, path: str, body: dict[str, Any], status: int, words: str
) -> None:
    answer = engine.post(path, json={"model": "chat", **body})
    assert (answer.status_code, words in answer.json()["error"]["message"]) == (status, True)


def test_a_refused_request_of_an_adapter_blocks_no_other(engine: httpx.Client) -> None:
    form = {"type": "json_schema", "json_schema": {"schema": {"type": "no-such-type"}}}
    body = {"model": "loud", "prompt": "x", "response_format": form}
    assert engine.post("/v1/completions", json=body).status_code == 400
    assert said(engine, "x", "quiet.v1", max_tokens=1, ignore_eos=True)


def test_a_stream_tells_all_tokens_where_several_make_a_text(engine: httpx.Client) -> None:
    body = {"model": "chat", "prompt": "x", "max_tokens": 20, "ignore_eos": True, "temperature": 0}
    found = events(engine.post("/v1/completions", json={**body, "stream": True}))
    assert sum(event["karez_tokens"] for event in found) == 20
    assert len(found) < 20


def test_only_the_gateway_is_answered(engine: httpx.Client) -> None:
    other = {"authorization": "Bearer other"}
    assert engine.get("/health", headers=other).status_code == 200
    for path in ("/v1/models", "/v1/completions", "/nowhere"):
        assert engine.get(path, headers=other).status_code == 401


def test_a_model_without_continuous_batching_answers_one_by_one(tmp_path: Path) -> None:
    folder = write_tiny_chat(tmp_path / "model")
    torch.manual_seed(0)
    config = MambaConfig(
        vocab_size=259, hidden_size=32, num_hidden_layers=2, state_size=4, pad_token_id=2
    )
    model = MambaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    wanted = [expected(model, tokenizer, prompt) for prompt in PROMPTS]
    launch = EngineLaunch(alias="chat", tokens=128, parallel=4)
    with running_engine(MODULE, folder, launch, tmp_path / "e") as client:
        with ThreadPoolExecutor(len(PROMPTS)) as callers:
            found = list(callers.map(lambda prompt: said(client, prompt), PROMPTS))
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
        text = said(client, "{", response_format=form, max_tokens=12)
        body = {"model": "chat", "prompt": "x", "max_tokens": 100, "stream": True}
        with client.stream("POST", "/v1/completions", json={**body, "ignore_eos": True}) as answer:
            assert next(answer.iter_lines()).startswith("data: {")
        assert said(client, PROMPTS[0]) == wanted[0]
    assert "one by one" in (tmp_path / "e" / "log").read_text()
    assert found == wanted
    assert re.fullmatch(r'\s*\{[\s"portkind:,0-9tcpu}-]*', text)


def test_embeddings_are_the_mean_of_the_tokens(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    tokenizer, model = write_tiny_bert(folder, BertModel)
    texts = ["red car", "blue bus green car", "bus"]
    launch = EngineLaunch(alias="e", task=Task.EMBED, tokens=32, parallel=2)
    with running_engine(MODULE, folder, launch, tmp_path / "e", env=ON_NPU) as client:
        answer = client.post("/v1/embeddings", json={"model": "e", "input": texts}).json()
        one = client.post("/v1/embeddings", json={"model": "e", "input": texts[1]}).json()
        wrong = client.post("/v1/embeddings", json={"model": "e", "input": [1]})
        long = client.post("/v1/embeddings", json={"model": "e", "input": "bus " * 900}).json()
    with torch.inference_mode():
        means = [
            model(**tokenizer(t, return_tensors="pt")).last_hidden_state[0].mean(0) for t in texts
        ]
        wanted = torch.nn.functional.normalize(torch.stack(means)).numpy()
    found = np.array([row["embedding"] for row in answer["data"]])
    assert np.abs(found - wanted).max() < 1e-5
    assert np.abs(np.array(one["data"][0]["embedding"]) - wanted[1]).max() < 1e-5
    assert answer["usage"]["prompt_tokens"] == 4 + 6 + 3
    assert long["usage"]["prompt_tokens"] == 32  # what does not fit is not read
    assert (wrong.status_code, wrong.json()["error"]["message"]) == (
        400,
        "input is a list of texts",
    )


@pytest.mark.parametrize("is_pooled", [True, False])
def test_labels_are_named_with_their_chances(is_pooled: bool, tmp_path: Path) -> None:
    folder, labels = tmp_path / "model", ["way", "colour", "both"]
    if is_pooled:
        tokenizer, _ = write_tiny_bert(folder, BertModel)
        model: Any = PooledClassifier.new(folder, labels).eval()
        model.save_pretrained(folder)
    else:
        tokenizer, _ = write_tiny_bert(
            folder,
            BertForSequenceClassification,
            id2label=dict(enumerate(labels)),
            label2id={label: n for n, label in enumerate(labels)},
        )
        model = BertForSequenceClassification.from_pretrained(folder).eval()
    texts = ["red car", "blue bus red", "green"]
    launch = EngineLaunch(alias="c", task=Task.CLASSIFY, tokens=32, parallel=2)
    with running_engine(MODULE, folder, launch, tmp_path / "e") as client:
        found = client.post("/v1/classify", json={"model": "c", "input": texts}).json()
        one = client.post("/v1/classify", json={"model": "c", "input": "green"}).json()
        wrong = client.post("/v1/classify", json={"model": "c", "input": [1]})
    with torch.inference_mode():
        wanted_BC = torch.cat(
            [model(**tokenizer(text, return_tensors="pt")).logits.softmax(-1) for text in texts]
        )
    assert found["labels"] == labels
    assert [row["index"] for row in found["data"]] == [0, 1, 2]
    for row, wanted_C in zip(found["data"], wanted_BC, strict=True):
        assert row["probs"] == pytest.approx(wanted_C.tolist(), abs=1e-5)
        assert row["label"] == labels[int(wanted_C.argmax())]
        assert row["num_classes"] == 3
    assert one["data"][0]["probs"] == pytest.approx(found["data"][2]["probs"], abs=1e-5)
    assert found["usage"]["prompt_tokens"] == 4 + 5 + 3
    assert wrong.status_code == 400


def test_documents_are_ranked_by_a_cross_encoder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    tokenizer, model = write_tiny_bert(folder, BertForSequenceClassification)
    documents = ["red car", "blue bus", "green"]
    launch = EngineLaunch(alias="r", task=Task.RERANK, tokens=32, parallel=2)
    asked = {"model": "r", "query": "bus", "documents": documents, "top_n": 2}
    with running_engine(MODULE, folder, launch, tmp_path / "e") as client:
        found = client.post("/v1/rerank", json=asked).json()["results"]
    with torch.inference_mode():
        pairs = tokenizer(["bus"] * 3, documents, padding=True, return_tensors="pt")
        scores = model(**pairs).logits[:, 0].sigmoid().tolist()
    best = sorted(range(3), key=lambda number: -scores[number])[:2]
    assert [one["index"] for one in found] == best
    assert [one["relevance_score"] for one in found] == pytest.approx([scores[n] for n in best])
