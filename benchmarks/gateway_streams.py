"""Open streams against a gateway: `PORT KEY STREAMS SECONDS`; prints JSON of what came of them."""

import asyncio
import json
import sys
import time
from typing import Any, ClassVar

import uvloop
from typing_extensions import override

BODY = json.dumps(
    {
        "model": "gpt",
        "messages": [{"role": "user", "content": "hello " * 40}],
        "stream": True,
    }
).encode()


class Caller(asyncio.Protocol):
    """One caller, who asks again until the time is up."""

    first_s: ClassVar[list[float]] = []
    whole, broken, until = 0, 0, 0.0
    request = b""

    @override
    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._ask()

    def _ask(self) -> None:
        self.asked, self.has_first, self.tail = time.perf_counter(), False, b""
        self.transport.write(self.request)

    @override
    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        if not self.has_first and b"data:" in data:
            self.has_first = True
            self.first_s.append(now - self.asked)
        self.tail = (self.tail + data)[-32:]
        if self.tail.endswith(b"0\r\n\r\n"):
            Caller.whole += b"[DONE]" in self.tail
            if now < self.until:
                self._ask()
            else:
                self.transport.close()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        Caller.broken += time.perf_counter() < self.until


async def _run(port: int, key: str, streams: int, seconds: float) -> None:
    Caller.request = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nauthorization: Bearer %s\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
    ) % (key.encode(), len(BODY), BODY)
    loop = asyncio.get_running_loop()
    Caller.until = time.perf_counter() + seconds
    for number in range(streams):  # spread over the length of a stream
        await loop.create_connection(Caller, "127.0.0.1", port)
        await asyncio.sleep(1.28 / streams if number else 0)
    await asyncio.sleep(seconds)
    await asyncio.sleep(1.5)
    waits = sorted(Caller.first_s)
    told = {
        "streams": Caller.whole,
        "broken": Caller.broken,
        "first_p50_ms": round(1000 * waits[len(waits) // 2], 2),
        "first_p99_ms": round(1000 * waits[int(len(waits) * 0.99)], 2),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    uvloop.run(_run(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
