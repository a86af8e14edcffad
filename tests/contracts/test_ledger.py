"""The bill of a service whose gateway and control are killed while it is called."""

import json
import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from karez.client import billing_calls, calls
from karez.client.sdk import Client
from karez.core.artifacts import ArtifactKind
from karez.core.ledger import Bill, LedgerLine, verify
from karez.core.prices import Price
from karez.core.services import ServiceSpec
from tests.contracts.cloud import Cloud, make_cloud, until
from tests.tiny_model import write_tiny_model

pytestmark = pytest.mark.deep
REQUESTS, CALLERS, TOKENS = 10_000, 8, 3
KILLS = ("gateway", "control", "gateway", "control", "gateway")


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    made = make_cloud(tmp_path / "home", KAREZ_PRELOAD="false", KAREZ_CPUS="2")
    made.karez("up")
    yield made
    made.karez("down")


class Callers:
    """They ask until each has had its answers, and ask again where one does not come."""

    def __init__(self, url: str, key: str) -> None:
        self._url, self._key = url, key
        self.answered: list[str] = []
        """The ids of the calls whose answers came."""
        self.given_up = 0
        """Requests that were sent, and broke off."""
        self._lock = threading.Lock()
        self._left = REQUESTS

    def run(self, number: int) -> None:
        headers = {"authorization": f"Bearer {self._key}"}
        body = {"model": "m", "prompt": f"{number}", "max_tokens": TOKENS, "ignore_eos": True}
        with httpx.Client(base_url=self._url, headers=headers, timeout=60) as client:
            while self._take():
                while not self._ask(client, body):
                    pass

    def _take(self) -> bool:
        with self._lock:
            self._left -= 1
            return self._left >= 0

    def _ask(self, client: httpx.Client, body: dict[str, object]) -> bool:
        try:
            answer = client.post("/completions", json=body)
        except httpx.ConnectError:
            return False  # nobody took it
        except httpx.HTTPError:
            with self._lock:
                self.given_up += 1
            return False
        assert answer.status_code == 200, answer.text
        with self._lock:
            self.answered.append(answer.headers["x-request-id"])
        return True


def _lines(client: Client) -> list[LedgerLine]:
    found: list[LedgerLine] = []
    while more := client.call(billing_calls.ledger("default", after=len(found))):
        found += more
    return found


def _computed(cloud: Cloud, url: str) -> int:
    """Tokens that the engine has generated, as it counts them."""
    headers = {"authorization": f"Bearer {(cloud.home / 'engine.key').read_text().strip()}"}
    text = httpx.get(f"{url}/metrics", headers=headers).text
    return int(float(re.findall(r"^llamacpp:tokens_predicted_total (\S+)$", text, re.M)[0]))


def test_each_answer_is_billed_once_however_often_gateway_and_control_are_killed(
    cloud: Cloud, tmp_path: Path
) -> None:
    with cloud.client() as client:
        model = write_tiny_model(tmp_path / "m.gguf", 256)
        client.upload(model, name="m", kind=ArtifactKind.MODEL, format="gguf")
        client.call(billing_calls.put_price(Price(model="m", prompt=7, completion=11)))
        spec = ServiceSpec(name="m", model="m", context_tokens=256, parallel=CALLERS)
        service = client.wait_ready(client.deploy(spec).id)
        (view,) = service.status.ranks
        before = _computed(cloud, view.url)
        key = (cloud.home / "admin.key").read_text().strip()
        callers = Callers(str(cloud.address()["gateway"]), key)
        until(lambda: _is_routed(cloud, key))
        with ThreadPoolExecutor(CALLERS) as pool:
            running = [pool.submit(callers.run, number) for number in range(CALLERS)]
            for number, part in enumerate(KILLS, 1):
                at = number * REQUESTS // (len(KILLS) + 1)
                until(lambda at=at: len(callers.answered) > at, within_s=600)  # type: ignore[misc]
                parts = cloud.address()["parts"]
                assert isinstance(parts, dict)
                os.kill(int(parts[part]), signal.SIGKILL)
            for one in running:
                one.result()
        assert len(callers.answered) == REQUESTS
        until(lambda: _has_all(client, callers.answered), within_s=120)
        lines = _lines(client)
        bill = Bill(project="default")
        verify(bill, lines)  # every cost is computed again from its tokens and rates
        facts = [json.loads(line.body) for line in lines]
        counted = Counter(fact["id"] for fact in facts)
        assert counted.most_common(1)[0][1] == 1
        assert set(callers.answered) <= set(counted)
        beyond = len(lines) - REQUESTS
        assert 0 <= beyond <= callers.given_up  # whose answers were computed, and broke off
        generated = _computed(cloud, view.url) - before
        most_lost = CALLERS * KILLS.count("gateway") * TOKENS
        assert 0 <= generated - bill.completion_tokens <= most_lost
        client.call(calls.stop_service(service.id))


def _has_all(client: Client, idents: list[str]) -> bool:
    return len(_lines(client)) >= len(set(idents))


def _is_routed(cloud: Cloud, key: str) -> bool:
    url = str(cloud.address()["gateway"])
    try:
        answer = httpx.get(f"{url}/models", headers={"authorization": f"Bearer {key}"})
    except httpx.HTTPError:
        return False
    return answer.status_code == 200 and "m" in answer.text
