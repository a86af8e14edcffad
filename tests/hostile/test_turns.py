"""Requests of one project wait for each other, and not others for them (H11)."""

from pathlib import Path

import anyio
import pytest

from karez.server.api import door
from karez.server.api.door import IN_FLIGHT, Door, Message, Receive, Send
from tests.api import running_api
from tests.hostile.conftest import TwoProjects


@pytest.mark.asyncio
async def test_a_project_has_some_requests_at_once_and_the_next_has_its_own(
    two: TwoProjects,
) -> None:
    inside: list[str] = []
    may_end = anyio.Event()
    tell, told = anyio.create_memory_object_stream[str](100)

    async def app(scope: Message, _receive: Receive, _send: Send) -> None:
        tell.send_nowait(scope["state"]["principal"].project)
        await may_end.wait()

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(_message: Message) -> None:
        raise AssertionError("it was refused")

    guarded = Door(app, cloud=two.api.cloud, prefix="", public=frozenset())

    async def ask(key: str) -> None:
        headers = [(b"authorization", f"Bearer {key}".encode())]
        scope = {"type": "http", "path": "/jobs", "headers": headers, "state": {}}
        await guarded(scope, receive, send)

    async def reached(count: int) -> None:
        with anyio.fail_after(20):
            while len(inside) < count:
                inside.append(await told.receive())

    async with anyio.create_task_group() as tasks:
        for number in range(2 * IN_FLIGHT):
            tasks.start_soon(ask, (two.a, two.a_admin)[number % 2])
        await reached(IN_FLIGHT)
        tasks.start_soon(ask, two.b)
        tasks.start_soon(ask, two.api.admin)
        await reached(IN_FLIGHT + 2)
        assert inside.count("a") == IN_FLIGHT
        assert sorted(inside[IN_FLIGHT:]) == ["*", "b"]
        may_end.set()
        await reached(2 * IN_FLIGHT + 2)
    tell.close()
    told.close()


@pytest.mark.asyncio
async def test_strangers_who_ask_again_and_again_are_held_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "HOLD_UP_S", 1e6)
    answers: list[int] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answers.append(message["status"])

    async def app(_scope: Message, _receive: Receive, to: Send) -> None:
        await to({"type": "http.response.start", "status": 200})

    with running_api(tmp_path) as api:
        guarded = Door(app, cloud=api.cloud, prefix="", public=frozenset())

        async def ask(host: str, key: str = "none") -> bool:
            """Whether an answer comes."""
            headers = [(b"authorization", f"Bearer {key}".encode())]
            scope = {"type": "http", "path": "/jobs", "headers": headers, "client": (host, 1)}
            with anyio.move_on_after(0.2 if len(answers) >= 50 else 20.0) as waiting:
                await guarded({**scope, "state": {}, "method": "GET"}, receive, send)
            return not waiting.cancelled_caught

        for _ in range(50):
            assert await ask("1.2.3.4")
        assert set(answers) == {401}
        assert not await ask("1.2.3.4")
        answers.clear()
        assert await ask("5.6.7.8")
        assert await ask("1.2.3.4", api.admin)
        assert answers == [401, 200]
