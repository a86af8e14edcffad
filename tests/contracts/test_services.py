"""A service of two replicas on a whole cloud: they and the gateway are killed while they speak."""

import os
import re
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest

from karez.client import calls
from karez.client.sdk import Client
from karez.core.artifacts import ArtifactKind
from karez.core.services import ServiceSpec
from tests.contracts.cloud import Cloud, make_cloud, until
from tests.serving.test_real_engines import ASCII_ONLY
from tests.tiny_model import write_tiny_model

pytestmark = pytest.mark.story
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
        more = {"ignore_eos": True, "logit_bias": ASCII_ONLY}
        with self._client as client:
            for event in client.completions.create(
                model="tiny",
                prompt=chr(65 + self._number) * 9,
                max_tokens=TOKENS,
                temperature=0,
                stream=True,
                extra_body=more,
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


def test_streams_and_records_survive_kills_of_replicas_and_of_the_gateway(tmp_path: Path) -> None:
    cloud = make_cloud(tmp_path / "home", KAREZ_PRELOAD="false")
    cloud.karez("up")
    try:
        with cloud.client() as client:
            model = write_tiny_model(tmp_path / "tiny.gguf", CONTEXT)
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
    finally:
        cloud.karez("down")


def _is_known(cloud: Cloud, key: str) -> bool:
    url = str(cloud.address()["gateway"])
    try:
        with openai.OpenAI(base_url=url, api_key=key, max_retries=0) as client:
            return [model.id for model in client.models.list()] == ["tiny"]
    except openai.OpenAIError:
        return False


def _recorded(client: Client) -> tuple[int, int]:
    """(requests, tokens of answers) of the service."""
    rows = [row for row in client.usage() if row.kind == "tokens"]
    return sum(row.requests for row in rows), sum(row.completion_tokens for row in rows)
