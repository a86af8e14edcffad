"""The access log of the gateway."""

import json
from pathlib import Path
from typing import Any

from karez.serving.access_log import AccessLog
from karez.serving.gateway import Gateway
from tests.serving.callers import RunApp
from tests.serving.waiting_engine import lines, post, ready, routes


async def test_the_access_log_has_each_request_and_what_was_asked_only_if_it_is_to(
    gateway: Gateway, run_app: RunApp, tmp_path: Path
) -> None:
    engine = ready()
    url = await run_app(engine.answer)
    gateway.table = routes(urls=(url,))
    said = [{"role": "user", "content": "a secret"}]
    answer = await post(gateway, messages=said)
    await post(gateway, key="none")
    await post(gateway, model="other")
    found = lines(tmp_path)
    assert [line["status"] for line in found] == [200, 401, 404]
    assert found[0]["id"] == answer.headers["x-request-id"]
    told = ("key_id", "service", "path", "replica", "prompt_tokens", "tries", "address")
    assert [found[0][name] for name in told] == [
        *("mine", "chat", "/v1/chat/completions", url, 10, 1, "127.0.0.1")
    ]
    assert "There is no model" in found[2]["message"]
    assert "secret" not in (tmp_path / "access.jsonl").read_text()
    log = gateway.book.access_log
    assert log is not None
    log.has_text = True
    await post(gateway, messages=said)
    assert lines(tmp_path)[-1]["messages"] == said


def test_an_access_log_has_an_end(tmp_path: Path) -> None:
    log = AccessLog(tmp_path / "log", most=200)
    for number in range(100):
        log.add([{"number": number, "filler": "x" * 20}])
    log.close()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["log", "log.1", "log.2", "log.3", "log.4"]
    assert all(path.stat().st_size <= 200 for path in tmp_path.iterdir())
    assert json.loads((tmp_path / "log").read_text().splitlines()[-1])["number"] == 99
    again = AccessLog(tmp_path / "log", most=200)
    again.add([{"number": 100}])
    again.close()
    assert json.loads((tmp_path / "log").read_text().splitlines()[-1])["number"] == 100


async def test_what_is_nested_too_deeply_for_the_log_is_left_out(
    gateway: Gateway, run_app: RunApp, tmp_path: Path
) -> None:
    engine = ready()
    gateway.table = routes(urls=(await run_app(engine.answer),))
    log = gateway.book.access_log
    assert log is not None
    log.has_text = True
    deep: Any = "x"
    for _ in range(400):
        deep = [deep]
    refused = await post(gateway, messages=deep)
    assert refused.status_code == 400  # it cannot be passed on
    assert lines(tmp_path)[-1]["status"] == 400
    wrong = await post(gateway, model="\x7f" * 100_000)
    assert len(wrong.content) < 2000
    assert len((tmp_path / "access.jsonl").read_text().splitlines()[-1]) < 2000


async def test_strangers_do_not_fill_the_access_log(gateway: Gateway, tmp_path: Path) -> None:
    gateway.table = routes(urls=())
    for _ in range(150):
        assert (await post(gateway, key="none")).status_code == 401
    assert len(lines(tmp_path)) == 100
    assert gateway.counts.statuses[401] == 150
