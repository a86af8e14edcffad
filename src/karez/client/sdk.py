"""The Python SDK: `karez.Client()` and `karez.AsyncClient()`, with the same methods."""

from types import TracebackType
from typing import Self, TypeVar

import httpx

from karez.client.address import find_address
from karez.client.calls import Call
from karez.client.drivers import PREFIX, TIMEOUT_S, AsyncDriver, BlockingDriver
from karez.client.methods import Methods

T = TypeVar("T")


class Client(Methods, BlockingDriver):
    """Blocking client of a cloud's API. Raises the errors of karez.errors."""

    def __init__(
        self,
        url: str = "",
        key: str = "",
        *,
        patience_s: float = 0.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Arguments win over KAREZ_URL and KAREZ_KEY, and these over the local cloud's files.

        `patience_s` 0 means 20 s for a cloud that runs here or has answered, else 1 s. `transport`
        is httpx's transport, by default the network.
        """
        super().__init__(find_address(url, key), patience_s)
        self._http = httpx.Client(
            base_url=self.address.url + PREFIX, timeout=TIMEOUT_S, transport=transport
        )

    def __enter__(self) -> Self:
        """Use as a context manager to close connections."""
        return self

    def __exit__(
        self, _k: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        """Close connections."""
        self.close()

    def close(self) -> None:
        """Close connections."""
        self._http.close()

    def call(self, call: Call[T]) -> T:
        """Send a call of karez.client.calls, pool_calls or access_calls."""
        return self.run(self.ask(call))


class AsyncClient(Methods, AsyncDriver):
    """Client of a cloud's API for asyncio: the methods of Client, awaited."""

    def __init__(
        self,
        url: str = "",
        key: str = "",
        *,
        patience_s: float = 0.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Take the arguments of Client; `transport` is an async transport of httpx."""
        super().__init__(find_address(url, key), patience_s)
        self._http = httpx.AsyncClient(
            base_url=self.address.url + PREFIX, timeout=TIMEOUT_S, transport=transport
        )

    async def __aenter__(self) -> Self:
        """Use as a context manager to close connections."""
        return self

    async def __aexit__(
        self, _k: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        """Close connections."""
        await self.close()

    async def close(self) -> None:
        """Close connections."""
        await self._http.aclose()

    async def call(self, call: Call[T]) -> T:
        """Send a call of karez.client.calls, pool_calls or access_calls."""
        return await self.run(self.ask(call))
