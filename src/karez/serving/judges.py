"""Guardrails that are models: services of the project that are asked about what is said.

Who cannot be asked, or says something else than what allows, does not allow.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import orjson
from typing_extensions import override

from karez.core.call_limits import NO_CALL_LIMITS
from karez.core.guardrails import Guardrail, Side
from karez.core.routing import Route
from karez.serving.admission import Elsewhere
from karez.serving.answers import Refusal
from karez.serving.http_request import Caller, Exchange
from karez.serving.model_call import ModelCall
from karez.serving.relay_counts import RelayCounts
from karez.serving.stream_log import CHAT

VERDICT_TOKENS = 16
OK = 200
Messages = Sequence[dict[str, str]]


class Court(Protocol):
    """Where services are asked: the gateway."""

    counts: RelayCounts

    def now(self) -> float:
        """The time, in UTC epoch seconds."""

    def service(self, project: str, name: str) -> Route | None:
        """The route of a service; None: there is none."""

    def admit(self, call: ModelCall) -> Elsewhere:
        """Admit a call. Raises Refusal."""

    def begin_relay(self, call: ModelCall, admitted: Elsewhere, caller: Caller) -> Exchange:
        """Send a call that was admitted to a replica."""


def judges_of(route: Route) -> Sequence[Guardrail]:
    """The guardrails of a route that are models; none of them is asked about itself."""
    return [one for one in route.guardrails if one.model and one.model != route.queue[1]]


class Judges:
    """The guardrails that are asked about one call."""

    def __init__(self, court: Court, call: ModelCall) -> None:
        """Ask as whoever made the call."""
        self._court, self._call = court, call
        self._judges = judges_of(call.route)
        self._open: set[Exchange] = set()
        """Questions that are not answered yet."""

    def read(self, side: Side) -> bool:
        """Whether one reads a side."""
        return any(one.reads(side) for one in self._judges)

    def hold(self, side: Side) -> bool:
        """Whether a side goes on only once they allow it."""
        return any(one.reads(side) and one.blocks for one in self._judges)

    def ask(self, side: Side, messages: Messages, decided: Callable[[str], None]) -> None:
        """Ask all that read a side; those that only count are not waited for.

        Args:
            side: What the messages are.
            messages: The last one is asked about.
            decided: Told the names of those that do not allow it; empty: all do.
        """
        own = [one for one in self._judges if one.reads(side)]
        waits = {one.name for one in own if one.blocks}
        found: list[str] = []

        def tell(one: Guardrail, is_allowed: bool) -> None:
            if not is_allowed:
                self._court.counts.found(self._call.route.project, [one])
            if one.name in waits:
                waits.discard(one.name)
                found.extend(() if is_allowed else (one.name,))
                if not waits:
                    decided(", ".join(sorted(found)))

        if not waits:
            decided("")
        for one in own:
            self._ask_one(one, messages, tell)

    def _ask_one(
        self, one: Guardrail, messages: Messages, tell: Callable[[Guardrail, bool], None]
    ) -> None:
        own, asked = self._call, list[Exchange]()
        is_told = False

        def told(is_allowed: bool) -> None:
            nonlocal is_told
            if not is_told:
                is_told = True
                self._open.difference_update(asked)
                tell(one, is_allowed)

        route = self._court.service(own.route.project, one.model)
        if route is None:
            told(False)
            return
        first = [{"role": "system", "content": one.instruction}] if one.instruction else []
        body: dict[str, Any] = {
            "model": route.service,
            "messages": [*first, *messages],
            "max_tokens": VERDICT_TOKENS,
            "temperature": 0,
        }
        terms = replace(
            own.terms,
            deadline_s=None,
            fallbacks=(),
            max_cost_nano=None,
            session="",
            hedge_s=None,
        )
        call = ModelCall(
            key=replace(own.key, calls=NO_CALL_LIMITS),  # it is not the caller who asks
            path=CHAT,
            route=replace(route, guardrails=()),
            body=body,
            size=len(orjson.dumps(body)),
            terms=terms,
            at=self._court.now(),
            asked=route.service,
        )
        try:
            admitted = self._court.admit(call)
        except Refusal:
            told(False)
            return
        asked.append(self._court.begin_relay(call, admitted, _Verdict(told, one.allows)))
        if not is_told:
            self._open.update(asked)

    def drop(self) -> None:
        """Ask no more: nobody waits for it."""
        asked, self._open = self._open, set()
        for one in asked:
            one.gone()


class _Verdict(Caller):
    """Hears what a guardrail's model answers."""

    def __init__(self, tell: Callable[[bool], None], allows: Sequence[str]) -> None:
        self._tell, self._allows = tell, allows

    @override
    def answer(self, status: int, kind: bytes, data: bytes, headers: bytes = b"") -> None:
        try:
            said = str(orjson.loads(data)["choices"][0]["message"]["content"])
        except (ValueError, LookupError, TypeError):
            said = ""
        words = said.strip().casefold()
        is_allowed = any(words.startswith(word.casefold()) for word in self._allows)
        self._tell(status == OK and is_allowed)

    @override
    def refuse(self, refusal: Refusal) -> None:
        self._tell(False)

    @override
    def start(self, status: int, kind: bytes, headers: bytes) -> None:
        return  # it is asked for whole answers

    @override
    def piece(self, data: bytes) -> None:
        return

    @override
    def finish(self) -> None:
        self._tell(False)

    @override
    def abort(self) -> None:
        self._tell(False)
