"""Limits of a key, a model and a project together."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from karez.core.call_limits import CallLimits, MinuteLimits
from karez.core.identity import Role
from karez.core.routing import GatewayKey, Route, Table
from karez.serving.answers import Refusal
from karez.serving.call_limiter import CallLimiter
from karez.serving.call_terms import NO_TERMS
from karez.serving.model_call import ModelCall

ROUTE = Route(service="chat", project="p", urls=())


def call(key: GatewayKey, at: float, **body: Any) -> ModelCall:
    return ModelCall(
        key=key,
        path="/v1/chat/completions",
        route=ROUTE,
        terms=NO_TERMS,
        body=body,
        size=400,
        at=at,
        asked="chat",
    )


def key(ident: str, calls: CallLimits) -> GatewayKey:
    return GatewayKey(id=ident, project="p", role=Role.MEMBER, digest="", calls=calls)


def taken(limiter: CallLimiter, asking: ModelCall, route: Route) -> str:
    """What is said of the limit that was reached; empty: none was."""
    try:
        limiter.take(asking, route)
    except Refusal as refusal:
        return refusal.message if refusal.status == 429 and refusal.retry_after_s > 0 else "wrong"
    return ""


def test_each_limit_holds_for_all_that_it_is_of() -> None:
    limiter = CallLimiter()
    route = replace(
        ROUTE,
        calls=MinuteLimits(requests_per_minute=3),
        project_calls=MinuteLimits(requests_per_minute=4),
    )
    a, b = key("a", CallLimits(requests_per_minute=2)), key("b", CallLimits())
    assert [taken(limiter, call(a, 100.0), route) for _ in range(2)] == ["", ""]
    assert "limit of this key is reached: 2 requests/min" in taken(limiter, call(a, 100.0), route)
    assert taken(limiter, call(b, 100.0), route) == ""
    assert "limit of 'chat' is reached: 3" in taken(limiter, call(b, 100.0), route)
    other = replace(route, service="other")
    assert taken(limiter, call(b, 100.0), other) == ""
    assert "limit of project p is reached: 4" in taken(limiter, call(b, 100.0), other)
    law = replace(route, service="law", base="chat")  # an adapter is of the same replicas
    assert "limit of 'chat'" in taken(
        limiter, call(b, 100.0), replace(law, project_calls=route.calls)
    )
    assert taken(limiter, call(a, 161.0), route) == ""


def test_what_is_refused_by_one_limit_counts_against_no_other() -> None:
    limiter = CallLimiter()
    route = replace(ROUTE, calls=MinuteLimits(tokens_per_minute=1000))
    a = key("a", CallLimits(requests_per_minute=1))
    first = call(a, 5.0, max_tokens=100)
    limiter.take(first, route)
    assert taken(limiter, call(a, 5.0, max_tokens=100), route)
    b = key("b", CallLimits())
    assert taken(limiter, call(b, 5.0, max_tokens=700), route) == ""  # 200 and 800 tokens
    assert taken(limiter, call(b, 5.0, max_tokens=1), route)
    first.taken.settle(50, 6.0, route)
    assert taken(limiter, call(b, 6.0, max_tokens=40), route) == ""
    assert b"x-ratelimit-limit-requests: 1" in first.taken.headers(6.0)


def test_limits_that_change_keep_what_was_used() -> None:
    limiter = CallLimiter()
    table = Table(keys=(), routes=(replace(ROUTE, calls=MinuteLimits(requests_per_minute=1)),))
    a = key("a", CallLimits())
    assert taken(limiter, call(a, 5.0), table.routes[0]) == ""
    route = replace(ROUTE, calls=MinuteLimits(requests_per_minute=2))
    limiter.follow(Table(routes=(route,)))
    assert taken(limiter, call(a, 5.0), route) == ""
    assert taken(limiter, call(a, 5.0), route)
    limiter.follow(Table(routes=(ROUTE,)))
    assert taken(limiter, call(a, 5.0), ROUTE) == ""
    assert not limiter._meters


@pytest.mark.parametrize("is_limited", [True, False])
@given(steps=st.lists(st.tuples(st.integers(0, 500), st.floats(0, 30)), max_size=30))
def test_nothing_is_reserved_once_all_have_ended(
    is_limited: bool, steps: list[tuple[int, float]]
) -> None:
    limiter, now = CallLimiter(), 10.0
    calls = MinuteLimits(tokens_per_minute=2000 * is_limited)
    route = replace(ROUTE, calls=calls, project_calls=calls)
    running: list[ModelCall] = []
    for tokens, pause in steps:
        now += pause
        one = call(key("a", CallLimits()), now, max_tokens=tokens or None)
        if not taken(limiter, one, route):
            running.append(one)
            continue
        for ended in running:
            ended.taken.settle(7, now, route)
        running = []
    for ended in running:
        ended.taken.settle(7, now, route)
    assert all(meter.reserved == 0 for meter in limiter._meters.values())


def test_the_key_of_a_job_shares_the_limits_of_the_key_that_asked_for_the_job() -> None:
    limiter, calls = CallLimiter(), CallLimits(requests_per_minute=3)
    user = key("user", calls)
    jobs = [replace(key(ident, calls), parent="user") for ident in ("one", "two")]
    limiter.follow(Table(keys=(*jobs, user), routes=()))
    assert [taken(limiter, call(one, 5.0), ROUTE) for one in (*jobs, user)] == ["", "", ""]
    limiter.follow(Table(keys=(*jobs, user), routes=()))
    assert all(taken(limiter, call(one, 6.0), ROUTE) for one in (*jobs, user))
