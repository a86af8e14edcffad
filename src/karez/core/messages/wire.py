"""Messages as JSON objects, and back, strictly. Pure.

A message is an object with its `type` and the fields of its dataclass.
"""

from collections.abc import Iterable, Mapping
from dataclasses import Field, dataclass, fields
from typing import Any, ClassVar, Final, Protocol, TypeVar

from karez.core.codec import from_json

PROTOCOL: Final = 5
"""Number of the protocol between the processes of a cloud; both ends of a connection must have the
same. It grows with every change of a message. 1: karez 0.1, whose greetings had no number."""

PROTOCOL_HEADER: Final = "karez-protocol"
"""Header with which nodes and the gateway tell control the number of their protocol."""
WHY_CHARACTERS: Final = 300
"""Longest reason of a refusal: it may quote what was sent."""


class Message(Protocol):
    """A dataclass that travels between processes."""

    TYPE: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Malformed:
    """A message that could not be read."""

    type: str
    why: str


def encode(message: Message) -> dict[str, Any]:
    """Convert a message to an object that JSON can hold; its keys become strings there."""
    values = {item.name: getattr(message, item.name) for item in fields(message)}
    return {"type": message.TYPE, **values}


def by_type(kinds: Iterable[type[M]]) -> Mapping[str, type[M]]:
    """Index message classes by the type that each has on the wire."""
    return {kind.TYPE: kind for kind in kinds}


def decode(known: Mapping[str, type[M]], received: Mapping[str, Any]) -> M | Malformed:
    """Read a received object as one of the known messages.

    Returns:
        The message; or Malformed for an unknown type, a missing or unknown field, or a wrong value.
    """
    name = received.get("type")
    kind = known.get(name) if isinstance(name, str) else None
    if kind is None:
        return Malformed(type=_brief(name), why="unknown type of message")
    values = content(received)
    if unknown := sorted(values.keys() - kind.__dataclass_fields__.keys()):
        return Malformed(type=kind.TYPE, why=_brief(f"{unknown[0]}: unknown field"))
    try:
        return from_json(kind, values)
    except (ValueError, RecursionError) as error:
        return Malformed(type=_brief(name), why=_brief(error))


def content(message: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an encoded message, without its type."""
    return {key: item for key, item in message.items() if key != "type"}


def protocol_mismatch(found: object) -> str:
    """Why a peer with this protocol number cannot be spoken to; empty if it can."""
    if found == PROTOCOL and not isinstance(found, bool):
        return ""
    name = "no number" if found is None else _brief(found)
    return (
        f"the protocol here is number {PROTOCOL}, the other side has {name}: "
        "install the same release of karez on both"
    )


def _brief(value: object) -> str:
    return str(value)[:WHY_CHARACTERS]
