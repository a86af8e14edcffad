"""The recipe of batches: what is asked again, what stands, and what a kill leaves."""

import asyncio
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from karez.core.batches import BatchLine
from karez.core.errors import Unreachable
from karez.runtime.host_clock import epoch_s
from karez.studio.recipes import batch_calls
from karez.studio.recipes.batch_calls import Batch, Results
from karez.studio.settings import BatchCalls

Answer = Callable[[dict[str, Any]], httpx.Response]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_calls, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(batch_calls, "LAST_PAUSE_S", 0.01)
    monkeypatch.setattr(batch_calls, "GREETINGS", 3)


def lines(count: int) -> Iterator[BatchLine]:
    for number in range(count):
        yield BatchLine(custom_id=f"r{number}", url="/v1/completions", body={"prompt": number})


def run(folder: Path, answer: Answer, count: int = 20, left_s: float = 60.0) -> Batch:
    """Answer a batch by a gateway that answers so."""

    def gateway(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={})
        assert request.headers["x-karez-priority"] == "offline"
        return answer(json.loads(request.content))

    return asyncio.run(_run(folder, gateway, count, left_s))


async def _run(
    folder: Path, gateway: Callable[[httpx.Request], httpx.Response], count: int, left_s: float
) -> Batch:
    settings = BatchCalls(
        requests=count,
        endpoint="/v1/completions",
        completion_window="1h",
        deadline=epoch_s() + left_s,
        parallel=4,
    )
    transport = httpx.MockTransport(gateway)
    async with httpx.AsyncClient(base_url="http://g/v1", transport=transport) as client:
        answers, errors = (Results(folder / f"{name}.jsonl") for name in ("output", "errors"))
        batch = Batch(settings, client, answers, errors)
        try:
            await batch.run(lines(count))
        finally:
            batch.answers.file.close()
            batch.errors.file.close()
        return batch


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def test_what_passes_is_asked_again_and_what_stands_is_an_error(tmp_path: Path) -> None:
    asked: dict[int, int] = {}

    def answer(body: dict[str, Any]) -> httpx.Response:
        number = body["prompt"]
        asked[number] = asked.get(number, 0) + 1
        if number == 1 and asked[1] < 3:
            return httpx.Response(429, json={"error": {"type": "rate_limit_error"}})
        if number == 2 and asked[2] < 2:
            return httpx.Response(503, text="no replica")
        if number == 3 and asked[3] < 2:
            raise httpx.ConnectError("gone")
        if number == 4:
            return httpx.Response(404, json={"error": {"message": "no model"}})
        if number == 5 and asked[5] < 6:  # behind all others by then
            return httpx.Response(429, json={"error": {"type": "insufficient_quota"}})
        if number == 6:
            return httpx.Response(200, content=b'{"text": "\\ud83d"}')
        return httpx.Response(200, json={"n": number}, headers={"x-request-id": f"q{number}"})

    batch = run(tmp_path, answer)
    assert (asked[1], asked[2], asked[3], asked[4], asked[5]) == (3, 2, 2, 1, 6)
    assert (batch.done, len(batch.answers.known), batch.expired) == (20, 19, 0)
    found = {row["custom_id"]: row for row in rows(tmp_path, "output")}
    assert found["r1"]["response"] == {"status_code": 200, "request_id": "q1", "body": {"n": 1}}
    errors = {row["custom_id"]: row for row in rows(tmp_path, "errors")}
    assert {name: row["response"]["status_code"] for name, row in errors.items()} == {"r4": 404}


def test_lines_that_fail_again_and_again_hold_up_no_others(tmp_path: Path) -> None:
    def answer(body: dict[str, Any]) -> httpx.Response:
        return httpx.Response(500 if body["prompt"] < 6 else 200, json={})

    batch = run(tmp_path, answer, count=40, left_s=1.0)
    assert (len(batch.answers.known), batch.expired) == (34, 6)


def test_a_revoked_key_ends_the_attempt_and_spoils_no_line(tmp_path: Path) -> None:
    with pytest.raises(ExceptionGroup):
        run(tmp_path, lambda body: httpx.Response(200 if body["prompt"] < 3 else 401, json={}))
    assert rows(tmp_path, "errors") == []
    assert 0 < len(rows(tmp_path, "output")) <= 3


def test_what_has_no_answer_in_time_is_expired(tmp_path: Path) -> None:
    batch = run(tmp_path, lambda _: httpx.Response(503, text="busy"), count=5, left_s=0.2)
    assert (batch.expired, batch.done) == (5, 5)
    assert {row["error"]["code"] for row in rows(tmp_path, "errors")} == {"batch_expired"}
    assert rows(tmp_path, "output") == []


def test_a_block_of_zeros_in_the_results_is_cut_off(tmp_path: Path) -> None:
    run(tmp_path, lambda body: httpx.Response(200, json=body), count=3)
    with (tmp_path / "output.jsonl").open("ab") as file:
        file.write(bytes(100) + b"\n" + b"{}\n")
    run(tmp_path, lambda body: httpx.Response(200, json=body), count=5)
    assert len(rows(tmp_path, "output")) == 5


@pytest.mark.parametrize("cut", [0, 1, 30, 71])
def test_after_a_kill_only_what_has_no_whole_line_is_asked_again(tmp_path: Path, cut: int) -> None:
    run(tmp_path, lambda body: httpx.Response(200, json=body), count=6)
    file = tmp_path / "output.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) - cut])
    lost = {f"r{n}" for n in range(6)} - {
        json.loads(line)["custom_id"] for line in whole[: len(whole) - cut].split(b"\n")[:-1]
    }
    asked: list[int] = []

    def answer(body: dict[str, Any]) -> httpx.Response:
        asked.append(body["prompt"])
        return httpx.Response(200, json=body)

    run(tmp_path, answer, count=6)
    assert {f"r{number}" for number in asked} == lost
    found = rows(tmp_path, "output")
    assert sorted(row["custom_id"] for row in found) == [f"r{n}" for n in range(6)]
    assert len({row["id"] for row in found}) == 6


def test_a_key_that_the_gateway_does_not_know_yet_is_waited_for(tmp_path: Path) -> None:
    numbers = itertools.count()

    def gateway(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models" and next(numbers) < 2:
            return httpx.Response(401, text="unknown")
        return httpx.Response(200, json={})

    assert asyncio.run(_run(tmp_path, gateway, 2, 60.0)).done == 2
    with pytest.raises(Unreachable, match="unknown"):
        asyncio.run(_run(tmp_path, lambda _: httpx.Response(401, text="unknown"), 2, 60.0))
