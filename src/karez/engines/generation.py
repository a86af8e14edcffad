"""What is asked of a model that karez itself puts behind HTTP, and what it tells. Pure.

The requests are OpenAI's. What would change an answer in form is refused; penalties and fields that
nobody knows are ignored, as llama.cpp does with the latter.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

MAX_STOPS = 16
REFUSED = "refused"
"""End of an answer that cannot be given, as a BadField."""
_REFUSED = ("logprobs", "top_logprobs", "echo", "suffix", "logit_bias", "best_of")
"""Fields that change what is answered, and that these engines do not have."""
LEAST = 1e-4
"""Least temperature that is one, and least probability: below it, the likeliest token is drawn."""
_LIMITS = ("max_completion_tokens", "max_tokens")


class BadField(ValueError):
    """A request that cannot be answered, with what is wrong with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A text that is asked for."""

    tokens: Sequence[int]
    """Of the prompt."""
    most: int
    """Longest answer, in tokens."""
    temperature: float = 1.0
    """0: always the likeliest token."""
    top_p: float = 1.0
    top_k: int = 0
    """0: all tokens."""
    seed: int | None = None
    stops: tuple[str, ...] = ()
    ignores_end: bool = False
    """Whether the answer goes on after the token that ends it."""
    schema: str = ""
    """JSON schema, as text, that the answer keeps to; empty: it is free."""
    adapter: str = ""
    """Name of the adapter that answers; empty: the base."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A piece of an answer."""

    tokens: Sequence[int] = ()
    end: str = ""
    """Why it is the last: `stop`, `length`, `error`, or `refused`."""
    problem: str = ""
    """What went wrong."""


class Backend(Protocol):
    """A model that generates text for several callers. Called on the loop of its server."""

    @property
    def has_schemas(self) -> bool:
        """Whether answers keep to a JSON schema."""
        ...

    @property
    def end_tokens(self) -> frozenset[int]:
        """Tokens that end an answer."""
        ...

    def begin(self, asked: Asked, tell: Callable[[Piece], None]) -> Callable[[], None]:
        """Begin an answer; `tell` is called with its pieces, on the same loop.

        Returns what gives the answer up; it is harmless after the last piece.
        """
        ...


class Codec(Protocol):
    """Text as tokens and back."""

    @property
    def size(self) -> int:
        """Tokens that the model knows: all are below it."""
        ...

    def encode(self, text: str) -> Sequence[int]:
        """The tokens of a prompt, with those that begin one."""
        ...

    def chat(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any], *, goes_on: bool
    ) -> Sequence[int]:
        """The tokens of a conversation; its last message `goes_on` in the answer, or is over.

        Raises BadField.
        """
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of some tokens, without those that only mark."""
        ...


def asked_of(
    body: Mapping[str, Any],
    tokens: Sequence[int],
    *,
    context: int,
    adapter: str,
    has_schemas: bool,
) -> Asked:
    """What a request asks for after a prompt.

    Args:
        body: The request.
        tokens: Its prompt.
        context: Tokens that prompt and answer may have together.
        adapter: Name of the adapter that answers.
        has_schemas: Whether schemas are kept to.

    Raises:
        BadField: It cannot be answered.
    """
    for name in _REFUSED:
        if body.get(name):
            raise BadField(f"this engine has no {name}")
    if body.get("n") not in (None, 1):
        raise BadField("this engine gives one answer: n is 1")
    if not tokens:
        raise BadField("the prompt is empty")
    left = context - len(tokens)
    if left < 1:
        raise BadField(
            f"the prompt has {len(tokens)} tokens, and the context of this model is {context}"
        )
    wanted = [_number(body, name, 1, 2**31, int) for name in _LIMITS if body.get(name) is not None]
    schema = _schema(body)
    if schema and not has_schemas:
        raise BadField("this engine keeps to no JSON schema; leave response_format out")
    return Asked(
        tokens=tokens,
        most=min([left, *wanted]),
        temperature=_temperature(body),
        top_p=max(LEAST, _number(body, "top_p", 0.0, 1.0, float, 1.0)),
        top_k=_number(body, "top_k", -1, 2**31, int, 0),
        seed=_number(body, "seed", -(2**63), 2**63, int) if body.get("seed") is not None else None,
        stops=_stops(body.get("stop")),
        ignores_end=body.get("ignore_eos") is True,
        schema=schema,
        adapter=adapter,
    )


def _temperature(body: Mapping[str, Any]) -> float:
    found: float = _number(body, "temperature", 0.0, 100.0, float, 1.0)
    return found if found >= LEAST else 0.0


def _number(
    body: Mapping[str, Any], name: str, least: float, most: float, kind: type, default: Any = None
) -> Any:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadField(f"{name} is a number, not {value!r}")
    if not least <= value <= most or (kind is int and value != int(value)):
        raise BadField(f"{name} is between {least} and {most}, not {value!r}")
    return kind(value)


def _stops(value: Any) -> tuple[str, ...]:
    found = [value] if isinstance(value, str) else value or []
    if not isinstance(found, list) or not all(isinstance(one, str) and one for one in found):
        raise BadField("stop is a text, or a list of texts")
    if len(found) > MAX_STOPS:
        raise BadField(f"stop has at most {MAX_STOPS} texts")
    return tuple(found)


def _schema(body: Mapping[str, Any]) -> str:
    """The JSON schema of a request, as text; empty: it has none."""
    wanted = body.get("response_format")
    if wanted is None:
        return ""
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "text":
        return ""
    if kind == "json_object":
        return '{"type": "object"}'
    named = wanted.get("json_schema") if isinstance(wanted, dict) else None
    schema = named.get("schema") if isinstance(named, dict) else None
    if kind != "json_schema" or not isinstance(schema, dict):
        raise BadField("response_format is text, json_object, or json_schema with a schema")
    return json.dumps(schema)
