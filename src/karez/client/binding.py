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
    """A flow as a method of both clients."""

    def __init__(self, flow: Callable[Concatenate[Any, P], Flow[T]]) -> None:
        """The flow's first parameter is the client."""
        self.flow = flow
        self._face = _Face.of(flow)

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
        """The method of a client; of a class, the flow."""
        if client is None:
            return self.flow
        return self._face.put_on(client.bind(partial(self.flow, client)))


class Stream(Generic[P, T]):
    """A flow that emits items as a method of both clients."""

    def __init__(self, items: Callable[Concatenate[Any, P], Items[T]]) -> None:
        """The flow's first parameter is the client."""
        self.items = items
        self._face = _Face.of(items, Iterator)

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
        """The method of a client; of a class, the flow."""
        if client is None:
            return self.items
        return self._face.put_on(client.bind_stream(partial(self.items, client)))


def endpoint(make: Callable[P, Call[T]]) -> Method[P, T]:
    """A method that sends one call, with the parameters and the docstring of what makes it."""

    def flow(client: Driver, /, *args: P.args, **named: P.kwargs) -> Flow[T]:
        return client.ask(make(*args, **named))

    shown = signature(make)
    itself = Parameter("self", Parameter.POSITIONAL_ONLY)
    whole = shown.replace(parameters=[itself, *shown.parameters.values()])
    _Face(name=make.__name__, doc=make.__doc__, shown=whole).put_on(flow)
    return Method(flow)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Face:
    """What `help` shows of a method: it returns a value, and knows its client."""

    name: str
    doc: str | None
    shown: Signature

    @staticmethod
    def of(flow: Callable[..., Any], value: Any = None) -> "_Face":
        whole = signature(flow)
        given = value or get_args(whole.return_annotation)[-1]  # of Call and of Flow alike
        bound = list(whole.parameters.values())[1:]
        shown = whole.replace(parameters=bound, return_annotation=given)
        return _Face(name=flow.__name__, doc=flow.__doc__, shown=shown)

    def put_on(self, function: F) -> F:
        face: Any = function
        face.__name__, face.__doc__, face.__signature__ = self.name, self.doc, self.shown
        return function
