"""Messages between processes: what is sent is read, and nonsense is a value with a reason."""

import json
import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from karez.core.messages import greetings, orders, replicas, reports
from karez.core.messages.wire import (
    PROTOCOL,
    WHY_CHARACTERS,
    Malformed,
    by_type,
    decode,
    encode,
    protocol_mismatch,
)

TABLES: tuple[Mapping[str, type[Any]], ...] = (
    by_type([greetings.ProcessGreeting, greetings.ReplicaGreeting, greetings.HeartbeatGreeting]),
    orders.ORDERS,
    reports.REPORTS,
    replicas.REPLICA_REQUESTS,
    replicas.REPLICA_ANSWERS,
)
KINDS = sorted({kind for table in TABLES for kind in table.values()}, key=str)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def table_of(kind: type[Any]) -> Mapping[str, type[Any]]:
    return next(table for table in TABLES if kind in table.values())


def over_the_wire(message: Any) -> Any:
    return json.loads(json.dumps(encode(message)))


def plain(value: Any) -> Any:
    """Any mapping that hypothesis chose, as a dict."""
    return (
        {key: plain(item) for key, item in value.items()} if isinstance(value, Mapping) else value
    )


def is_finite(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    return st.from_type(kind).map(plain).filter(is_finite)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
@settings(max_examples=8)
def test_every_message_is_read_as_it_was_sent(kind: type[Any], data: st.DataObject) -> None:
    values = {item.name: data.draw(values_of(item.type)) for item in fields(kind)}
    if kind is replicas.ShipSnapshot:
        values["limits_bytes"] = tuple(range(len(values["to"])))
    sent = over_the_wire(kind(**values))
    received = decode(table_of(kind), sent)
    assert isinstance(received, kind), received
    assert str(over_the_wire(received)) == str(sent)  # as text: nan is not equal to nan


@given(data=st.data())
@settings(max_examples=120)
def test_whatever_arrives_is_a_message_or_a_refusal_with_a_reason(data: st.DataObject) -> None:
    table = data.draw(st.sampled_from(TABLES))
    kind = data.draw(st.sampled_from(sorted(table)))
    names = [item.name for item in fields(table[kind])] + ["type", "unknown"]
    received = data.draw(st.dictionaries(st.sampled_from(names), ANYTHING))
    received["type"] = data.draw(
        st.sampled_from([kind, kind, kind, "unknown", None, 7, "x" * 9999])
    )
    message = decode(table, received)
    if isinstance(message, Malformed):
        assert 0 < len(message.why) <= WHY_CHARACTERS
        assert len(message.type) <= WHY_CHARACTERS
    else:
        assert isinstance(message, table[kind])


def test_what_is_missing_unknown_or_out_of_range_is_named() -> None:
    sent = over_the_wire(reports.CommitReport(generation=1, step=2, loss=0.5))

    def why(**changes: Any) -> str:
        received = {key: item for key, item in {**sent, **changes}.items() if item != "absent"}
        message = decode(reports.REPORTS, received)
        assert isinstance(message, Malformed)
        return message.why

    assert "step" in why(step="absent")
    assert "step" in why(step=-1)
    assert "step" in why(step="three")
    assert "speed" in why(speed=1)
    assert "unknown type" in why(type="committed")
    assert "unknown type" in why(type="absent")


def test_a_peer_of_another_release_is_recognised() -> None:
    assert protocol_mismatch(PROTOCOL) == ""
    for other in (None, PROTOCOL + 1, 1, "two", True, [2]):
        assert "same release" in protocol_mismatch(other)


def test_no_type_names_two_messages_on_one_connection() -> None:
    for union in (reports.Report, orders.Order, replicas.ReplicaRequest, replicas.ReplicaAnswer):
        kinds = [
            kind.TYPE for member in get_args(union) for kind in (get_args(member) or (member,))
        ]
        assert len(kinds) == len(set(kinds))
