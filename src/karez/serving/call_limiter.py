"""The limits of a minute that a call counts against: of key, model and project. Pure."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from karez.core.call_limits import CallLimits, MinuteLimits
from karez.core.routing import Route, Table
from karez.serving.answers import Refusal
from karez.serving.call_meter import (
    METER_CELLS,
    MODEL,
    CallMeter,
    Taken,
    model_of,
    tokens_asked,
)
from karez.serving.model_call import ModelCall
from karez.serving.rows import Name, OpenRows, own_rows


@dataclass(slots=True)
class CallLimiter:
    """The meters of a gateway."""

    open_rows: OpenRows = own_rows
    _meters: dict[Name, CallMeter] = field(default_factory=dict)

    def follow(self, table: Table) -> None:
        """Take in what the limits are now; what was used stays."""
        named: dict[Name, CallLimits | MinuteLimits] = {}
        for key in table.keys:
            named["key", key.counts_as] = key.calls
        for route in table.routes:
            named |= dict(_of_route(route))
        limits = {name: one for name, one in named.items() if _is_limit(one)}
        self._meters = {name: one for name, one in self._meters.items() if name in limits}
        for name, meter in self._meters.items():
            meter.limits = limits[name]

    def take(self, call: ModelCall, route: Route) -> None:
        """Count a call against all limits that it has and that it is not counted against yet.

        One that a limit refuses is counted against none of them. Raises Refusal.
        """
        named = [pair for pair in _of(call, route) if pair[0] not in call.taken.meters]
        limited = [(name, limits) for name, limits in named if _is_limit(limits)]
        if not limited:
            return
        tokens = tokens_asked(call.size, call.answer_tokens)
        meters = {name: self._meter(name, limits) for name, limits in limited}
        waits = {name: meter.wait_s(tokens, call.at) for name, meter in meters.items()}
        if max(waits.values()) <= 0:
            waits = _take_all(meters, tokens, call.at)
        name = max(waits, key=waits.__getitem__)
        if waits[name] > 0:
            raise _refusal(name, dict(limited)[name], math.ceil(waits[name]))
        call.taken = Taken({**call.taken.meters, **meters}, tokens)

    def _meter(self, name: Name, limits: CallLimits | MinuteLimits) -> CallMeter:
        meter = self._meters.get(name)
        if meter is None:
            rows = self.open_rows(name, METER_CELLS)
            meter = self._meters[name] = CallMeter(limits=limits, rows=rows)
        return meter


def _take_all(meters: Mapping[Name, CallMeter], tokens: int, now: float) -> dict[Name, float]:
    """Take a request of all meters, or of none; returns how long to wait for each."""
    taken: list[CallMeter] = []
    for name, meter in meters.items():
        if (wait_s := meter.take(tokens, now)) > 0:
            for one in taken:
                one.give_back(tokens, now)
            return {name: wait_s}
        taken.append(meter)
    return dict.fromkeys(meters, 0.0)


def _refusal(name: Name, limits: CallLimits | MinuteLimits, wait_s: int) -> Refusal:
    message = f"The limit of {_whose(name)} is reached: {limits.told}; try again in {wait_s} s."
    return Refusal(429, "rate_limit_error", message, wait_s, may_go_elsewhere=name[0] == MODEL)


def _of(call: ModelCall, route: Route) -> Iterator[tuple[Name, CallLimits | MinuteLimits]]:
    yield ("key", call.key.counts_as), call.key.calls
    yield from _of_route(route)


def _is_limit(limits: CallLimits | MinuteLimits) -> bool:
    return limits.requests_per_minute > 0 or limits.tokens_per_minute > 0


def _of_route(route: Route) -> Iterator[tuple[Name, MinuteLimits]]:
    yield model_of(route), route.calls
    yield ("project", route.project), route.project_calls


def _whose(name: Name) -> str:
    if name[0] == "key":
        return "this key"
    return f"project {name[1]}" if name[0] == "project" else f"{name[2]!r}"
