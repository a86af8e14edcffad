"""Flows (client.steps) as ordinary methods of both clients.

A type checker sees `Job` on a client that blocks and `Coroutine[Any, Any, Job]` on one that
awaits, with the flow's own parameters.
"""

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from functools import partial
from inspect import Parameter, Signature, signature
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, get_args, overload

from karez.client.calls import Call
from karez.client.drivers import AsyncDriver, BlockingDriver, Driver
from karez.client.steps import Flow, Items

T = TypeVar("T")
P = ParamSpec("P")
F = TypeVar("F", bound=Callable[..., Any])


class Method(Generic[P, T]):
    """Descriptor that turns a flow into a method of both clients."""

    def __init__(self, flow: Callable[Concatenate[Any, P], Flow[T]]) -> None:
        """Keep a flow whose first parameter is the client."""
        self.flow = flow
        self._signature = _Signature.of(flow)

    @overload
    def __get__(
        self, client: None, owner: type[Driver]
    ) -> Callable[Concatenate[Any, P], Flow[T]]: ...
    @overload
    def __get__(self, client: BlockingDriver, owner: type[Driver]) -> Callable[P, T]: ...
    @overload
    def __get__(
        self, client: AsyncDriver, owner: type[Driver]
    ) -> Callable[P, Coroutine[Any, Any, T]]: ...

    def __get__(self, client: Driver | None, owner: type[Driver]) -> Callable[..., Any]:
        """Bind to a client; on the class, return the flow."""
        if client is None:
            return self.flow
        return self._signature.apply_to(client.bind(partial(self.flow, client)))


class Stream(Generic[P, T]):
    """Descriptor that turns a flow that emits items into a method of both clients."""

    def __init__(self, items: Callable[Concatenate[Any, P], Items[T]]) -> None:
        """Keep a flow whose first parameter is the client."""
        self.items = items
        self._signature = _Signature.of(items, Iterator)

    @overload
    def __get__(
        self, client: None, owner: type[Driver]
    ) -> Callable[Concatenate[Any, P], Items[T]]: ...
    @overload
    def __get__(self, client: BlockingDriver, owner: type[Driver]) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(
        self, client: AsyncDriver, owner: type[Driver]
    ) -> Callable[P, AsyncIterator[T]]: ...

    def __get__(self, client: Driver | None, owner: type[Driver]) -> Callable[..., Any]:
        """Bind to a client; on the class, return the flow."""
        if client is None:
            return self.items
        return self._signature.apply_to(client.bind_stream(partial(self.items, client)))


def endpoint(make: Callable[P, Call[T]]) -> Method[P, T]:
    """Make a method that sends one call, with the signature and docstring of `make`."""

    def flow(client: Driver, /, *args: P.args, **named: P.kwargs) -> Flow[T]:
        return client.ask(make(*args, **named))

    shown = signature(make)
    receiver = Parameter("self", Parameter.POSITIONAL_ONLY)
    full = shown.replace(parameters=[receiver, *shown.parameters.values()])
    _Signature(name=make.__name__, doc=make.__doc__, signature=full).apply_to(flow)
    return Method(flow)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Signature:
    """Signature and docstring that `help` shows: without the client, with the flow's value type."""

    name: str
    doc: str | None
    signature: Signature

    @staticmethod
    def of(flow: Callable[..., Any], value: Any = None) -> "_Signature":
        full = signature(flow)
        returned = value or get_args(full.return_annotation)[-1]  # of Call and of Flow alike
        bound = list(full.parameters.values())[1:]
        shown = full.replace(parameters=bound, return_annotation=returned)
        return _Signature(name=flow.__name__, doc=flow.__doc__, signature=shown)

    def apply_to(self, function: F) -> F:
        face: Any = function
        face.__name__, face.__doc__, face.__signature__ = self.name, self.doc, self.signature
        return function
