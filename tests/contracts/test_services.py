"""Services on a whole cloud: killed while they speak, woken by requests, and updated."""

import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import psutil
import pytest
from transformers import BertForSequenceClassification, BertModel

from karez.client import calls, pool_calls
from karez.client.sdk import Client
from karez.core.artifacts import ArtifactKind
from karez.core.gangs import GangSpec
from karez.core.jobs import JobSpec
from karez.core.services import ServiceSpec
from karez.core.workloads import ENDED, State, WorkloadKind
from tests.contracts.callers import ask, asking, chat, models, streaming
from tests.contracts.cloud import Cloud, make_cloud, until
from tests.tiny_bert import write_tiny_bert
from tests.tiny_chat import speak_ascii, write_adapter, write_tiny_chat
from tests.tiny_model import write_decided_model, write_tiny_model

pytestmark = [
    pytest.mark.story,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),  # of peft
]
STREAMS, TOKENS, CONTEXT = 8, 1800, 2048


class Speaker:
    """One stream of the service, and what it has said so far."""

    def __init__(self, cloud: Cloud, key: str, number: int) -> None:
        url = str(cloud.address()["gateway"])
        self._client = openai.OpenAI(base_url=url, api_key=key, max_retries=0, timeout=120)
        self._number = number
        self.begun = threading.Event()
        self.said = ""

    def speak(self) -> str:
        with self._client as client:
            for event in client.completions.create(
                model="tiny",
                prompt=chr(65 + self._number) * 9,
                max_tokens=TOKENS,
                temperature=0,
                stream=True,
            ):
                self.said += "".join(choice.text for choice in event.choices)
                self.begun.set()
        return self.said


def speak(cloud: Cloud, key: str, *dying: int) -> list[str]:
    """Open all streams at once, kill processes when half have begun, and return what was said."""
    speakers = [Speaker(cloud, key, number) for number in range(STREAMS)]
    with ThreadPoolExecutor(STREAMS) as pool:
        texts = [pool.submit(speaker.speak) for speaker in speakers]
        until(lambda: sum(one.begun.is_set() for one in speakers) > STREAMS / 2, every_s=0.002)
        for pid in dying:
            os.kill(pid, signal.SIGKILL)
        return [text.result() for text in texts]


def pids(client: Client) -> set[int]:
    """The processes of the replicas that are ready."""
    (service,) = client.services()
    ready = [view.pid for view in service.status.ranks if view.state == "ready"]
    return {pid for pid in ready if pid is not None}


def takeovers(cloud: Cloud) -> int:
    """How often a replica went on with the stream of another."""
    url = str(cloud.address()["gateway"]).removesuffix("/v1")
    text = httpx.get(f"{url}/metrics").text
    return int(re.findall(r"^karez_gateway_stream_takeovers_total (\d+)$", text, re.MULTILINE)[0])


def gateway_pid(cloud: Cloud) -> int:
    parts = cloud.address()["parts"]
    assert isinstance(parts, dict)
    return int(parts["gateway"])


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    home = tmp_path_factory.mktemp("cloud") / "home"
    made = make_cloud(home, KAREZ_PRELOAD="false", KAREZ_CPUS="2", KAREZ_EMULATE="npu=2")
    made.karez("up")
    yield made
    made.karez("down")


@pytest.fixture(autouse=True)
def leaves_nothing(cloud: Cloud) -> Iterator[None]:
    """What a test leaves holds no devices of the next one, also where it fails."""
    yield
    with cloud.client() as client:
        for service in client.services():
            client.call(calls.stop_service(service.id))
        for job in client.call(calls.jobs()):
            if job.state not in ENDED:
                client.call(calls.cancel(job.id))
        until(lambda: not client.call(pool_calls.allocations()))


def test_streams_and_records_survive_kills_of_replicas_and_of_the_gateway(
    cloud: Cloud, tmp_path: Path
) -> None:
    with cloud.client() as client:
        model = write_decided_model(tmp_path / "tiny.gguf", CONTEXT)
        client.upload(model, name="tiny", kind=ArtifactKind.MODEL, format="gguf")
        spec = ServiceSpec(name="tiny", model="tiny", replicas=2, context_tokens=CONTEXT)
        service = client.wait_ready(client.deploy(spec).id)
        until(lambda: len(pids(client)) == 2)
        limits = ("--model", "tiny", "--requests-per-minute", "33")
        key = cloud.karez("keys", "create", "app", *limits).stdout.strip()
        until(lambda: _is_known(cloud, key))
        undisturbed = speak(cloud, key)
        assert {len(text) for text in undisturbed} == {TOKENS}
        one = min(pids(client))
        assert speak(cloud, key, one) == undisturbed
        first = takeovers(cloud)
        assert first > 0
        until(lambda: len(pids(client) - {one}) == 2)
        both = pids(client)
        assert speak(cloud, key, *both) == undisturbed  # they wait until one is there again
        assert takeovers(cloud) > first + STREAMS / 2
        calls_of = 3 * STREAMS
        until(lambda: _recorded(client) == (calls_of, calls_of * TOKENS))
        until(lambda: len(pids(client) - both) == 2)
        speak(cloud, key)  # of which control may not have heard yet
        os.kill(gateway_pid(cloud), signal.SIGKILL)
        until(lambda: _is_known(cloud, key))
        calls_of = 4 * STREAMS
        until(lambda: _recorded(client) == (calls_of, calls_of * TOKENS))
        client.call(calls.stop_service(service.id))


TOML = """
name = "rare"
model = "tiny-1"
replicas = "0..2"
idle = "2s"
context = 1024
parallel = 2
"""


def test_a_service_wakes_for_a_request_with_a_device_of_a_training_and_is_updated(
    cloud: Cloud, tmp_path: Path
) -> None:
    (tmp_path / "rare.toml").write_text(TOML)
    with cloud.client() as client:
        for number in (1, 2):
            model = write_tiny_model(tmp_path / f"{number}.gguf", CONTEXT * number)
            client.upload(model, name=f"tiny-{number}", kind=ArtifactKind.MODEL, format="gguf")
        said = cloud.karez("services", "apply", str(tmp_path / "rare.toml")).stdout
        assert "karez chat rare" in said  # it runs, or is idle again already
        key = cloud.karez("keys", "create", "caller").stdout.strip()
        until(lambda: client.call(calls.service("rare")).state == State.IDLE)
        job = client.submit(_training())
        until(lambda: client.call(calls.job(job.id)).status.step > 2)
        assert _ranks(client, job.id) == 2  # all that this cloud has
        assert ask(cloud, key) > 0  # it was held until there was a replica
        until(lambda: _ranks(client, job.id) == 1)
        assert ask(cloud, key) == 0
        wrong = ("--model", "tiny-2", "--probe", "Are you well?", "--expect", "Thank you.")
        until(lambda: client.call(calls.service("rare")).state == State.IDLE)
        assert cloud.karez("services", "update", "rare", *wrong, "--no-wait").returncode == 0
        assert ask(cloud, key) > 0  # which tries what is new, and then what was before
        notices = client.call(calls.service("rare")).status.notices
        assert "undone" in notices[0]
        assert "Thank you." in notices[0]
        assert client.wait(job.id).state == State.SUCCEEDED
        steps = [row.step for row in client.call(calls.metrics(job.id)) if row.rank == 0]
        assert steps == [*range(1, STEPS + 1)]  # none was lost
        given = [row for row in client.settlement(3600.0).handovers if row.to_service]
        assert {(row.from_name, row.to_name, row.kind) for row in given} == {
            ("elastic", "rare", "cpu")
        }
        assert given[0].device_s > 0
        cloud.karez("services", "update", "rare", "--replicas", "1")
        before = client.call(calls.service("rare"))
        ask(cloud, key)
        with asking(cloud, key) as held:
            told = cloud.karez("services", "update", "rare", "--model", "tiny-2").stdout
        assert "replicas updated: 0 of 1" in told
        assert sum(held) == 0
        assert len(held) > 20
        service = client.call(calls.service("rare"))
        assert service.spec.model != before.spec.model
        assert [view.state for view in service.status.ranks] == ["ready"]
        assert service.status.ranks[0].rank != before.status.ranks[0].rank
        client.call(calls.stop_service(service.id))


def test_a_folder_and_its_adapter_are_served_on_npus_and_outlive_a_replica(
    cloud: Cloud, tmp_path: Path
) -> None:
    with cloud.client() as client:
        folder = speak_ascii(write_tiny_chat(tmp_path / "chat"))
        client.upload(folder, name="folder", kind=ArtifactKind.MODEL, format="hf")
        adapter = write_adapter(folder, tmp_path / "law")
        client.upload(adapter, name="law-lora", kind=ArtifactKind.MODEL, format="peft")
        key = cloud.karez("keys", "create", "npus").stdout.strip()
        words = ("folder", "--name", "chat", "--each", "npu=1", "--context", "256")
        fit = cloud.karez("services", "fit", *words).stdout
        assert "engine transformers: no other can (llamacpp: it loads gguf" in fit
        assert "KV cache" in fit
        many = ("--replicas", "2", "--parallel", "8", "--adapter", "law=law-lora")
        cloud.karez("services", "deploy", *words, *many)
        until(lambda: len(pids(client)) == 2)
        base, law = (chat(cloud, key, model) for model in ("chat", "law"))
        assert base != law
        with streaming(cloud, key) as stream:
            pieces = [next(stream)]
            os.kill(_busy(client), signal.SIGKILL)
            pieces += stream
        assert "".join(pieces) == base
        shown = cloud.karez("services", "show", "chat").stdout
        assert "law" in shown
        until(lambda: 0 < _memory(client) < 200 << 20)  # of an NPU, not of the host
        until(lambda: {"chat", "law"} <= {row.what for row in client.usage()})
        client.call(calls.stop_service("chat"))


def test_embeddings_and_ranks_come_from_npus(cloud: Cloud, tmp_path: Path) -> None:
    with cloud.client() as client:
        key = cloud.karez("keys", "create", "vectors").stdout.strip()
        for task, kind in (("embed", BertModel), ("rerank", BertForSequenceClassification)):
            write_tiny_bert(tmp_path / task, kind)
            client.upload(tmp_path / task, name=task, kind=ArtifactKind.MODEL, format="hf")
            words = ("--name", f"{task}s", "--task", task, "--each", "npu=1", "--context", "64")
            cloud.karez("services", "deploy", task, *words)
        until(lambda: {"embeds", "reranks"} <= models(cloud, key))
        url = str(cloud.address()["gateway"])
        with openai.OpenAI(base_url=url, api_key=key, max_retries=0, timeout=120) as caller:
            texts = ["red car", "blue bus", "red car"]
            rows = caller.embeddings.create(model="embeds", input=texts).data
            assert rows[0].embedding == pytest.approx(rows[2].embedding)
            assert rows[0].embedding != pytest.approx(rows[1].embedding)
            with pytest.raises(openai.BadRequestError, match="call /v1/embeddings"):
                caller.completions.create(model="embeds", prompt="red")
        asked = {"model": "reranks", "query": "bus", "documents": ["red car", "blue bus"]}
        headers = {"authorization": f"Bearer {key}"}
        ranks = httpx.post(f"{url}/rerank", json=asked, headers=headers).json()["results"]
        assert sorted(one["index"] for one in ranks) == [0, 1]
        assert ranks[0]["relevance_score"] >= ranks[1]["relevance_score"]
        until(lambda: {"embeds", "reranks"} <= {row.what for row in client.usage() if row.requests})
        for name in ("embeds", "reranks"):
            client.call(calls.stop_service(name))


def test_a_call_has_terms_and_another_model_answers_what_one_cannot(
    cloud: Cloud, tmp_path: Path
) -> None:
    with cloud.client() as client:
        model = write_tiny_model(tmp_path / "terms.gguf", 256)
        client.upload(model, name="terms", kind=ArtifactKind.MODEL, format="gguf")
        for words in (("small",), ("large", "--fallback", "small", "--hedge", "500ms")):
            cloud.karez("services", "deploy", "terms", "--context", "256", "--name", *words)
        cloud.karez("prices", "set", "large", "--prompt", "1000", "--completion", "1000")
        made = ("keys", "create", "--priority", "near-line", "--address")
        near = cloud.karez(*made, "127.0.0.0/8", "near").stdout.strip()
        far = cloud.karez(*made, "10.0.0.0/8", "far").stdout.strip()
        until(lambda: models(cloud, near) >= {"small", "large"})
        url = str(cloud.address()["gateway"])
        cheap = {"x-karez-max-cost": "0.001"}

        def ask(key: str, **headers: str) -> httpx.Response:
            sent = {"authorization": f"Bearer {key}", **headers}
            body = {"model": "large", "prompt": "a", "max_tokens": 8}
            return httpx.post(f"{url}/completions", json=body, headers=sent, timeout=60)

        until(lambda: ask(far).status_code == 403)
        assert "x-karez-model" not in ask(near).headers
        until(lambda: ask(near, **cheap).headers.get("x-karez-model") == "small")
        late = ask(near, **{"x-karez-timeout-ms": "1"})
        assert late.status_code == 504
        logged = (cloud.home / "logs" / "access.jsonl").read_text().splitlines()
        *_, by_small, ended = found = [json.loads(line) for line in logged]
        assert (by_small["service"], by_small["asked"]) == ("small", "large")
        assert by_small["priority"] == "near-line"
        assert ended["status"] == 504
        assert 403 in {line["status"] for line in found}
        rules = tmp_path / "guardrails.toml"
        rules.write_text('[[guardrail]]\nname = "own"\nwords = ["a"]\n')
        cloud.karez("projects", "guardrails", "default", "--file", str(rules))
        until(lambda: ask(near, **cheap).status_code == 400)
        assert ask(near, **cheap).json()["error"]["type"] == "content_filter"
        rules.write_text(GUARD.format(action="block"))
        cloud.karez("projects", "guardrails", "default", "--file", str(rules))
        until(lambda: "'guard'" in ask(near).text)
        rules.write_text(GUARD.format(action="count"))
        cloud.karez("projects", "guardrails", "default", "--file", str(rules))
        until(lambda: ask(near).status_code == 200)
        cloud.karez("projects", "guardrails", "default", "--clear")
        for name in ("small", "large"):
            client.call(calls.stop_service(name))


GUARD = """
[[guardrail]]
name = "guard"
model = "small"
action = "{action}"
allows = ["what a tiny model never says"]
"""
STEPS = 300


def _training() -> JobSpec:
    return JobSpec(
        name="elastic",
        kind=WorkloadKind.TRAIN,
        recipe="chaos-workload",
        gang=GangSpec(min=1, want=2, max=2),
        settings={"steps": STEPS, "width": 64, "batch": 8, "pause_ms": 50.0},
    )


def _ranks(client: Client, job: str) -> int:
    views = client.call(calls.job(job)).status.ranks
    return sum(view.state == "running" for view in views)


def _memory(client: Client) -> int:
    """The most memory that a replica's engine has told."""
    return max(view.memory_bytes for view in client.call(calls.service("chat")).status.ranks)


def _busy(client: Client) -> int:
    """The process of the replica that answers a request."""
    found: list[int] = []

    def is_found() -> bool:
        views = client.call(calls.service("chat")).status.ranks
        used = {view.pid: psutil.Process(view.pid).cpu_percent(0.2) for view in views}
        busiest, least = max(used, key=used.__getitem__), min(used.values())
        found[:] = [busiest]
        return used[busiest] > 2 * least + 5

    until(is_found)
    return found[0]


def _is_known(cloud: Cloud, key: str) -> bool:
    return models(cloud, key) == {"tiny"}


def _recorded(client: Client) -> tuple[int, int]:
    """(requests, tokens of answers) of the service."""
    rows = [row for row in client.usage() if row.kind == "tokens" and row.what == "tiny"]
    return sum(row.requests for row in rows), sum(row.completion_tokens for row in rows)
