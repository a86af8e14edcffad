"""A pretended model server: `PORT`. A JSON answer of 1 KB at once, or 64 events, 20 ms apart."""

import asyncio
import json
import sys
from typing import Any

import httptools
import uvloop
from typing_extensions import override

EVENTS, PAUSE_S = 64, 0.02
USAGE = {"prompt_tokens": 50, "completion_tokens": 100, "total_tokens": 150}


def _answer() -> bytes:
    message = {"role": "assistant", "content": "x" * 750}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = json.dumps({"id": "c-1", "created": 1, "choices": [choice], "usage": USAGE}).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % len(body) + body


def _events() -> list[bytes]:
    choices = [{"index": 0, "delta": {"content": f" word{n}"}} for n in range(EVENTS - 2)]
    bodies: list[dict[str, Any]] = [{"choices": [choice]} for choice in choices]
    bodies.append({"choices": [], "usage": USAGE})
    texts = [json.dumps({"id": "c-1", "created": 1, **body}) for body in bodies] + ["[DONE]"]
    events = [f"data: {text}\n\n".encode() for text in texts]
    return [b"%x\r\n%s\r\n" % (len(event), event) for event in events]


ANSWER, STREAM = _answer(), _events()
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


class Upstream(asyncio.Protocol):
    """One connection of a gateway."""

    @override
    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)
        self.body = b""

    @override
    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """A piece of the request."""
        self.body += body

    def on_message_complete(self) -> None:
        """Answer."""
        body, self.body = self.body, b""
        if b'"stream":true' in body.replace(b" ", b""):
            self.transport.write(STREAM_HEAD)
            self._say(0)
        else:
            self.transport.write(ANSWER)

    def _say(self, number: int) -> None:
        if self.transport.is_closing():
            return
        if number == len(STREAM):
            self.transport.write(b"0\r\n\r\n")
            return
        self.transport.write(STREAM[number])
        asyncio.get_running_loop().call_later(PAUSE_S, self._say, number + 1)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(
        Upstream, "127.0.0.1", port, backlog=4096
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
