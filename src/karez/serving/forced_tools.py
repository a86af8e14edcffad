"""Calls of tools that a request insists on, of engines that do not force them. Pure.

Engines offer tools to a model, which may answer in prose all the same. Where a request says
`tool_choice`, an engine that keeps to JSON schemas is asked for an object with the name and the
arguments of a call instead, and its answer is given the form of a call.
"""

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from karez.core.routing import Route
from karez.serving.answers import Refusal
from karez.serving.call_terms import INVALID
from karez.serving.stream_log import DONE

REQUIRED = "required"
_TOLD = (
    "Answer with one JSON object that calls a function: its name, and its arguments. "
    "The functions, with the JSON schemas of their arguments:\n"
)


def force_tools(request: MutableMapping[str, Any], route: Route) -> bool:
    """Ask for a call by a schema, if a request insists on one and its engine does not force it.

    Returns whether the answer is to be given the form of a call. Raises Refusal.
    """
    choice = request.get("tool_choice")
    is_named = isinstance(choice, Mapping)
    if (choice != REQUIRED and not is_named) or route.forces_tools:
        return False
    functions = _functions(request.get("tools"))
    if is_named:
        named = choice.get("function") if isinstance(choice, Mapping) else None
        name = named.get("name") if isinstance(named, Mapping) else None
        functions = [one for one in functions if one["name"] == name]
    if not functions:
        raise Refusal(400, INVALID, "tool_choice asks for a call of a function that is in tools.")
    if not route.has_schemas:
        message = (
            f"The engine of {route.service!r} can neither force a call nor keep to a schema; "
            "leave out tool_choice."
        )
        raise Refusal(400, INVALID, message)
    if request.get("response_format") is not None:
        raise Refusal(400, INVALID, "An answer is a call or keeps to response_format, not both.")
    for name in ("tools", "tool_choice", "parallel_tool_calls"):
        request.pop(name, None)
    schema = {"name": "call", "strict": True, "schema": _schema(functions)}
    request["response_format"] = {"type": "json_schema", "json_schema": schema}
    told = _TOLD + "\n".join(orjson.dumps(one).decode() for one in functions)
    messages = request.get("messages")
    if isinstance(messages, list):
        request["messages"] = _with_system(messages, told)
    return True


def _functions(tools: Any) -> list[dict[str, Any]]:
    found = []
    for tool in tools if isinstance(tools, list) else ():
        function = tool.get("function") if isinstance(tool, Mapping) else None
        if isinstance(function, Mapping) and isinstance(function.get("name"), str):
            found.append(dict(function))
    return found


def _schema(functions: list[dict[str, Any]]) -> dict[str, Any]:
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"type": "string", "enum": [one["name"]]},
                "arguments": one.get("parameters") or {"type": "object"},
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for one in functions
    ]
    return calls[0] if len(calls) == 1 else {"anyOf": calls}


def _with_system(messages: list[Any], told: str) -> list[Any]:
    """Messages with one more text for the model in the first, which many templates want alone."""
    first = messages[0] if messages else None
    if isinstance(first, Mapping) and first.get("role") == "system":
        said = first.get("content")
        if isinstance(said, str):
            return [{**first, "content": f"{said}\n\n{told}"}, *messages[1:]]
    return [{"role": "system", "content": told}, *messages]


def _call_of(text: str, ident: str) -> dict[str, Any] | None:
    """The call that a text is; None: it was cut short."""
    try:
        said = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(said, dict) or not isinstance(said.get("name"), str):
        return None
    arguments = orjson.dumps(said.get("arguments") or {}).decode()
    function = {"name": said["name"], "arguments": arguments}
    return {"id": ident, "type": "function", "function": function}


def as_call(data: bytes, ident: str) -> bytes:
    """A whole answer, in the form of a call; one that was cut short stays as it is."""
    try:
        answer = orjson.loads(data)
    except orjson.JSONDecodeError:
        return data
    choices = answer.get("choices") if isinstance(answer, dict) else None
    for number, choice in enumerate(choices if isinstance(choices, list) else ()):
        message = choice.get("message") if isinstance(choice, dict) else None
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            continue
        call = _call_of(message["content"], f"{ident}-{number}")
        if call is not None:
            message.update(content=None, tool_calls=[call])
            choice["finish_reason"] = "tool_calls"
    return orjson.dumps(answer)


@dataclass(slots=True)
class CallStream:
    """A stream whose text is a call: it is told once it is whole."""

    ident: str
    _texts: dict[Any, list[str]] = field(default_factory=dict)
    """Index of an answer -> its text so far."""

    def pass_on(self, events: bytes) -> bytes:
        """Take in whole events; returns those that are sent instead."""
        parts = (event + b"\n\n" for event in events.split(b"\n\n") if event)
        return b"".join(map(self._event, parts))

    def _event(self, event: bytes) -> bytes:
        if event == DONE or not event.startswith(b"data: {"):
            return event
        try:
            data = orjson.loads(event[6:])
        except orjson.JSONDecodeError:
            return event
        choices = data.get("choices") if isinstance(data, dict) else None
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                self._take(choice)
        return b"data: %s\n\n" % orjson.dumps(data)

    def _take(self, choice: dict[str, Any]) -> None:
        delta, index = choice.get("delta"), str(choice.get("index", 0))
        said = self._texts.setdefault(index, [])
        if isinstance(delta, dict) and isinstance(delta.get("content"), str):
            said.append(delta["content"])
            delta["content"] = ""
        if not choice.get("finish_reason"):
            return
        text = "".join(said)
        call = _call_of(text, f"{self.ident}-{index}")
        if call is None:
            choice["delta"] = {"content": text}
        else:
            choice["delta"] = {"tool_calls": [{"index": 0, **call}]}
            choice["finish_reason"] = "tool_calls"
