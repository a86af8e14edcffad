"""Requests of one project wait for each other, and not others for them (H11)."""

import anyio
import pytest

from karez.server.api.door import IN_FLIGHT, Door, Message, Receive, Send
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

    door = Door(app, cloud=two.api.cloud, prefix="", public=frozenset())

    async def ask(key: str) -> None:
        headers = [(b"authorization", f"Bearer {key}".encode())]
        scope = {"type": "http", "path": "/jobs", "headers": headers, "state": {}}
        await door(scope, receive, send)

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
