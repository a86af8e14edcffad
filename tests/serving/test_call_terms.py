"""Terms of requests as they are written, and what a cost allows for."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from karez.core.call_limits import CallClass, CallLimits
from karez.core.identity import Role
from karez.core.prices import MICRO, Price, cost_nano
from karez.core.routing import GatewayKey
from karez.serving.address_ranges import caller_address, is_within, plain_address
from karez.serving.answers import Refusal
from karez.serving.call_terms import NO_TERMS, CallTerms, terms_of, tokens_within

KEY = GatewayKey(id="k", project="p", role=Role.MEMBER, digest="")
LATER = GatewayKey(
    id="k",
    project="p",
    role=Role.MEMBER,
    digest="",
    calls=CallLimits(priority=CallClass.NEAR_LINE),
)


@pytest.mark.parametrize(
    ("headers", "body", "key", "terms"),
    [
        ({}, {}, KEY, NO_TERMS),
        ({b"x-karez-timeout-ms": b"1500"}, {}, KEY, CallTerms(deadline_s=1.5)),
        ({b"x-karez-max-cost": b"0.002"}, {}, KEY, CallTerms(max_cost_nano=2_000_000)),
        ({b"x-karez-hedge-ms": b"250"}, {}, KEY, CallTerms(hedge_s=0.25)),
        ({b"x-session-id": b"s"}, {"prompt_cache_key": "t"}, KEY, CallTerms(session="s")),
        ({}, {"prompt_cache_key": "t"}, KEY, CallTerms(session="t")),
        ({}, {"prompt_cache_key": 7}, KEY, NO_TERMS),
        ({}, {"service_tier": "flex"}, KEY, CallTerms(priority=CallClass.NEAR_LINE)),
        ({}, {"service_tier": "priority"}, KEY, NO_TERMS),
        ({b"x-karez-priority": b"Offline"}, {}, KEY, CallTerms(priority=CallClass.OFFLINE)),
        ({b"x-karez-priority": b"online"}, {}, LATER, CallTerms(priority=CallClass.NEAR_LINE)),
        ({b"x-karez-priority": b"offline"}, {}, LATER, CallTerms(priority=CallClass.OFFLINE)),
        ({}, {"models": ["m", "other", "other"]}, KEY, CallTerms(fallbacks=("other",))),
        ({}, {"models": []}, KEY, CallTerms(fallbacks=())),
        ({}, {"models": None}, KEY, NO_TERMS),
    ],
)
def test_terms_are_read_from_headers_and_fields(
    headers: dict[bytes, bytes], body: dict[str, Any], key: GatewayKey, terms: CallTerms
) -> None:
    request = {"model": "m", **body}
    assert terms_of(headers, request, key) == terms
    assert "models" not in request


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({b"x-karez-timeout-ms": b"soon"}, {}),
        ({b"x-karez-timeout-ms": b"nan"}, {}),
        ({b"x-karez-timeout-ms": b"0"}, {}),
        ({b"x-karez-max-cost": b"-1"}, {}),
        ({b"x-karez-hedge-ms": b"inf"}, {}),
        ({b"x-karez-priority": b"first"}, {}),
        ({b"x-karez-priority": b"\xff"}, {}),
        ({}, {"models": "other"}),
        ({}, {"models": [7]}),
        ({}, {"models": [f"m{n}" for n in range(9)]}),
    ],
)
def test_terms_that_cannot_be_read_are_refused(
    headers: dict[bytes, bytes], body: dict[str, Any]
) -> None:
    with pytest.raises(Refusal) as caught:
        terms_of(headers, {"model": "m", **body}, KEY)
    assert caught.value.status == 400
    assert "should be" in caught.value.message


@given(
    prompt=st.integers(0, 10_000),
    cap=st.integers(0, 10**9),
    price=st.builds(
        Price,
        prompt=st.integers(0, 10 * MICRO),
        completion=st.integers(1, 10 * MICRO),
        off_peak=st.sampled_from(["", "00:00-23:59"]),
        off_peak_percent=st.integers(1, 100),
    ),
)
def test_an_answer_within_its_tokens_costs_no_more_than_it_may(
    prompt: int, cap: int, price: Price
) -> None:
    tokens = tokens_within(price, cap, at=0.0, prompt_tokens=prompt)
    assert tokens is not None

    def cost(completion: int) -> int:
        return cost_nano(
            price, at=0.0, prompt_tokens=prompt, cached_tokens=0, completion_tokens=completion
        )

    assert cost(tokens) <= cap or tokens == 0
    assert cost(tokens + 2) >= cap  # less than two tokens are left


def test_what_costs_nothing_may_be_as_long_as_it_likes() -> None:
    assert tokens_within(Price(), 0, at=0.0, prompt_tokens=100) is None
    assert tokens_within(Price(prompt=1000 * MICRO), 1, at=0.0, prompt_tokens=100) == 0


@pytest.mark.parametrize(
    ("peer", "forwarded", "proxies", "address"),
    [
        ("10.0.0.1", "", (), "10.0.0.1"),
        ("10.0.0.1", "1.2.3.4", (), "10.0.0.1"),
        ("10.0.0.1", "1.2.3.4", ("10.0.0.0/8",), "1.2.3.4"),
        ("10.0.0.1", "6.6.6.6, 1.2.3.4, 10.0.0.2", ("10.0.0.0/8",), "1.2.3.4"),
        ("1.1.1.1", "10.0.0.9", ("10.0.0.0/8",), "1.1.1.1"),
        ("10.0.0.1", "nonsense", ("10.0.0.0/8",), ""),
        ("::ffff:10.0.0.1", "", (), "10.0.0.1"),
        ("fe80::1%eth0", "", (), "fe80::1"),
    ],
)
def test_where_a_call_comes_from_is_what_trusted_proxies_say(
    peer: str, forwarded: str, proxies: tuple[str, ...], address: str
) -> None:
    assert caller_address(plain_address(peer), forwarded, proxies) == address


def test_addresses_are_within_their_ranges() -> None:
    assert is_within("10.1.2.3", ("192.168.0.0/16", "10.0.0.0/8"))
    assert is_within("fd00::1", ("fd00::/8",))
    assert not is_within("11.1.2.3", ("10.0.0.0/8", "fd00::/8"))
    assert not is_within("", ("0.0.0.0/0",))
