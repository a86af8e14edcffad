"""A cloud whose gateway has two processes, one of which is killed."""

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import httpx
import psutil
import pytest

from karez.client import calls
from karez.core.artifacts import ArtifactKind
from karez.core.services import ServiceSpec
from karez.serving.minute_window import MINUTE_S, STEPS_A_SECOND
from tests.contracts.cloud import Cloud, kill_all, make_cloud, until
from tests.tiny_model import write_decided_model

pytestmark = pytest.mark.story
KEYS, LIMIT, CALLERS = 6, 20, 12


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    folder = tmp_path_factory.mktemp("cloud")
    more = {"KAREZ_PRELOAD": "false", "KAREZ_CPUS": "1", "KAREZ_GATEWAY_PROCESSES": "2"}
    made = make_cloud(folder / "home", **more)
    made.karez("up")
    with made.client() as client:
        model = write_decided_model(folder / "m.gguf", 256)
        client.upload(model, name="m", kind=ArtifactKind.MODEL, format="gguf")
        spec = ServiceSpec(name="m", model="m", context_tokens=256, parallel=4)
        client.wait_ready(client.deploy(spec).id)
    yield made
    made.karez("down")


class Asked(NamedTuple):
    """One request, from when to when it took, and its status: 0 where its process was killed."""

    key: str
    sent_at: float
    ended_at: float
    status: int


def ask(cloud: Cloud, key: str) -> Asked:
    """Ask on a connection of its own, which any process may take."""
    url = f"{cloud.address()['gateway']}/completions"
    body = {"model": "m", "prompt": "A", "max_tokens": 2}
    headers = {"authorization": f"Bearer {key}"}
    at, status = time.monotonic(), 0
    with contextlib.suppress(httpx.TransportError):
        status = httpx.post(url, json=body, headers=headers, timeout=60).status_code
    return Asked(key, at, time.monotonic(), status)


def ask_all(cloud: Cloud, keys: list[str], times: int) -> list[Asked]:
    """Ask with each key so often, many at once."""
    with ThreadPoolExecutor(CALLERS) as pool:
        return list(pool.map(lambda key: ask(cloud, key), keys * times))


def check_limit(asked: list[Asked]) -> None:
    """Of one key no minute has more than the limit, and nobody was refused who was below it."""
    taken = [one for one in asked if one.status == 200]
    for first in taken:
        within = [
            one
            for one in taken
            if one.sent_at >= first.sent_at and one.ended_at < first.sent_at + MINUTE_S
        ]
        assert len(within) <= LIMIT
    for refused in asked:
        if refused.status == 429:
            since = refused.sent_at - MINUTE_S - 2 / STEPS_A_SECOND
            before = [
                one for one in taken if one.ended_at > since and one.sent_at < refused.ended_at
            ]
            assert len(before) >= LIMIT


def pids(cloud: Cloud) -> list[int]:
    parts = cloud.address()["parts"]
    assert isinstance(parts, dict)
    return [int(parts["gateway"]), int(parts["gateway-1"])]


def answered(cloud: Cloud) -> dict[str, int]:
    """Process -> requests that it has answered with 200, by the metrics that any one tells."""
    text = httpx.get(str(cloud.address()["gateway"]).removesuffix("/v1") + "/metrics").text
    line = r'^karez_gateway_answers_total\{process="(\d)",status="200"\} (\d+)$'
    return {process: int(count) for process, count in re.findall(line, text, re.MULTILINE)}


def recorded(cloud: Cloud) -> int:
    with cloud.client() as client:
        return sum(row.requests for row in client.usage() if row.what == "m")


def test_both_answer_and_keep_each_limit_together_also_after_one_is_killed(cloud: Cloud) -> None:
    limit = ("--requests-per-minute", str(LIMIT))
    keys = [cloud.karez("keys", "create", f"k{n}", *limit).stdout.strip() for n in range(KEYS)]
    asked: list[Asked] = []

    def add(more: list[Asked]) -> list[Asked]:
        asked.extend(more)
        return more

    def is_known(key: str) -> bool:
        return add([ask(cloud, key)])[0].status == 200

    for key in keys:
        until(partial(is_known, key))
    assert {one.status for one in add(ask_all(cloud, keys, LIMIT // 2))} == {200}
    until(lambda: len(counts := answered(cloud)) == 2 and min(counts.values()) > KEYS)
    before = pids(cloud)
    os.kill(before[1], signal.SIGKILL)
    until(lambda: ask(cloud, "kz_none").status == 401)
    assert {one.status for one in add(ask_all(cloud, keys, 1))} == {200}  # the other answers
    until(lambda: not set(before) & {pids(cloud)[1]})
    until(lambda: all(ask(cloud, "kz_none").status == 401 for _ in range(9)))
    add(ask_all(cloud, keys, LIMIT))
    for key in keys:
        check_limit([one for one in asked if one.key == key])
    taken = sum(one.status == 200 for one in asked)
    assert taken >= KEYS * LIMIT
    until(lambda: recorded(cloud) == taken)


@pytest.mark.deep
def test_what_a_process_had_not_delivered_is_delivered_where_the_gateway_has_fewer(
    cloud: Cloud,
) -> None:
    key = cloud.karez("keys", "create", "last").stdout.strip()
    until(lambda: ask(cloud, key).status == 200)
    until(lambda: all(not file.stat().st_size for file in cloud.home.glob("calls*")))
    known = recorded(cloud)
    os.kill(cloud.control(), signal.SIGSTOP)  # calls stay where they are
    assert {one.status for one in ask_all(cloud, [key], 2 * CALLERS)} == {200}
    held = [file.read_bytes() for file in cloud.home.glob("calls*") if file.stat().st_size]
    assert sum(data.count(b"\n") for data in held) == 2 * CALLERS
    assert len(held) == 2
    all_of_it = [psutil.Process(int(str(cloud.address()["pid"]))), *cloud.family()]
    kill_all(all_of_it)
    psutil.wait_procs(all_of_it, 60)
    cloud.env["KAREZ_GATEWAY_PROCESSES"] = "1"
    cloud.karez("up")
    until(lambda: recorded(cloud) == known + 2 * CALLERS)
    with cloud.client() as client:
        client.call(calls.stop_service("m"))
