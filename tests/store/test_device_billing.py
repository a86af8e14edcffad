"""Device time in the ledger: each moment once, at the price of its time, whatever is killed."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from karez.core.device_prices import DevicePrice
from karez.core.devices import Device, DeviceKind
from karez.core.grants import Grant
from karez.core.ledger import Bill, verify
from karez.core.nodes import Node, NodeId
from karez.core.prices import MICRO, NANO
from karez.core.workloads import State, Status, WorkloadId
from karez.store import device_billing
from karez.store.ledger import LedgerWriter
from karez.store.sql import SqlStore
from tests.store.samples import job

HOUR_S = 3600.0
NOW = 1_790_000_000.0 - 1_790_000_000.0 % HOUR_S
"""A full hour."""
NUMBERS = count()
NPUS = Grant(node=NodeId("n"), kind=DeviceKind.NPU, devices=((0, 1000), (1, 500)))


def bill_of(store: SqlStore, project: str = "default") -> Bill:
    bill = Bill(project=project)
    while lines := store.usage.ledger(project, after=bill.lines, limit=100):
        verify(bill, lines)
    return bill


def hold(store: SqlStore, ident: str, at: float, grant: Grant = NPUS) -> str:
    """A job that holds devices from an instant on; the token of its lease."""
    store.workloads.add_job(job(ident))
    store.workloads.place(WorkloadId(ident), [grant], now=at)
    claimed = store.workloads.claim([State.PLACED], owner="c", now=at, lease_s=1e9)
    return dict(claimed)[WorkloadId(ident)]


def end(store: SqlStore, ident: str, token: str, at: float) -> None:
    assert store.workloads.end(WorkloadId(ident), token, State.SUCCEEDED, Status(), now=at)


def test_devices_are_billed_by_the_hour_and_when_they_are_given_back(store: SqlStore) -> None:
    usage = store.usage
    models = tuple(Device(kind=DeviceKind.NPU, index=n, model="910b") for n in range(2))
    store.pool.record_nodes([Node(id=NodeId("n"), address="", devices=models)], now=NOW)
    usage.put_device_price(DevicePrice(device="npu", hour=MICRO), now=NOW)
    usage.put_device_price(DevicePrice(device="npu:910b", hour=2 * MICRO), now=NOW)
    token = hold(store, "j", NOW + 600)
    usage.bill_devices(NOW + HOUR_S - 1)
    assert bill_of(store).lines == 0
    assert usage.spend(NOW + 1800)["default"] == NANO  # 1.5 devices for 20 minutes
    for _ in range(2):
        usage.bill_devices(NOW + HOUR_S + 5)
    bill = bill_of(store)
    assert (bill.lines, bill.by_device) == (1, {"npu:910b": round(2.5 * NANO)})
    end(store, "j", token, NOW + 2 * HOUR_S - 1200)
    assert usage.spend(NOW + 3 * HOUR_S)["default"] == round(4.5 * NANO)
    for _ in range(2):
        usage.bill_devices(NOW + 3 * HOUR_S)
    bill = bill_of(store)
    assert (bill.lines, bill.cost_nano) == (2, round(4.5 * NANO))
    assert usage.spend(NOW + 3 * HOUR_S) == {"default": bill.cost_nano}
    (row,) = usage.summary(projects=None, now=NOW + 9 * HOUR_S)
    assert (row.device_kind, row.cost_nano, row.device_seconds) == ("npu", bill.cost_nano, 8100.0)


def test_a_price_holds_from_when_it_is_set_and_services_pay_if_it_says_so(store: SqlStore) -> None:
    usage = store.usage
    hold(store, "j", NOW)
    usage.put_device_price(DevicePrice(device="npu", hour=MICRO), now=NOW + HOUR_S)
    assert bill_of(store).cost_nano == 0  # it was free until then
    usage.put_device_price(DevicePrice(device="npu", hour=4 * MICRO), now=NOW + 2 * HOUR_S)
    assert bill_of(store).cost_nano == round(1.5 * NANO)
    assert usage.drop_device_price("npu", now=NOW + 3 * HOUR_S)
    assert not usage.drop_device_price("npu", now=NOW + 3 * HOUR_S)
    usage.bill_devices(NOW + 9 * HOUR_S)
    assert bill_of(store).cost_nano == round(7.5 * NANO)
    assert usage.device_prices() == []


def test_emulated_devices_cost_only_by_a_price_of_their_own(store: SqlStore) -> None:
    emulated = Grant(node=NodeId("n"), kind=DeviceKind.NPU, devices=((0, 1000),), is_emulated=True)
    store.usage.put_device_price(DevicePrice(device="npu", hour=MICRO), now=NOW)
    hold(store, "j", NOW, emulated)
    assert store.usage.spend(NOW + HOUR_S) == {}
    price = DevicePrice(device="npu:emulated", hour=MICRO)
    store.usage.put_device_price(price, now=NOW + HOUR_S)
    store.usage.bill_devices(NOW + 2 * HOUR_S)
    assert bill_of(store).by_device == {"npu:emulated": NANO}
    (row,) = store.usage.summary(projects=None, now=NOW)
    assert (row.device_kind, row.cost_nano) == ("emulated npu", NANO)


class Killed(BaseException):
    """Stands for SIGKILL."""


@contextmanager
def killed_while_it_writes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:

        def write(self: LedgerWriter) -> None:
            raise Killed

        patch.setattr(LedgerWriter, "write", write)
        with pytest.raises(Killed):
            yield


def test_who_is_killed_bills_later_and_not_twice(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.usage.put_device_price(DevicePrice(device="npu", hour=MICRO), now=NOW)
    token = hold(store, "j", NOW)
    with killed_while_it_writes(monkeypatch):
        store.usage.bill_devices(NOW + HOUR_S)
    end(store, "j", token, NOW + HOUR_S + 10)
    with killed_while_it_writes(monkeypatch):
        store.usage.bill_devices(NOW + 2 * HOUR_S)
    store.usage.bill_devices(NOW + 2 * HOUR_S)
    assert bill_of(store).device_seconds == {"npu": 1.5 * 3610}


steps = st.lists(
    st.tuples(
        st.sampled_from(["hold", "end", "bill", "price", "drop"]),
        st.integers(0, 3),
        st.integers(0, 40 * 24 * 3600 * 1000),
    ),
    max_size=14,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps)
def test_every_moment_is_billed_once_at_the_price_of_its_time(
    store: SqlStore, asked: list[tuple[str, int, int]]
) -> None:
    """Checked against a meter that is read at each event. Months pass within."""
    begun = bill_of(store).cost_nano
    now, rate, due, pieces = NOW, 0, 0.0, 0
    held: dict[str, str] = {}
    store.usage.drop_device_price("npu", now=now)
    for what, number, pause_ms in asked:
        now += pause_ms / 1000
        due += len(held) * 1.5 * rate * 1000 * pause_ms / 3_600_000
        pieces += len(held) * 3
        match what:
            case "hold":
                ident = f"j{next(NUMBERS)}"
                held[ident] = hold(store, ident, now)
            case "end" if held:
                ident, token = held.popitem()
                end(store, ident, token, now)
            case "bill":
                store.usage.bill_devices(now)
            case "price":
                rate = number * MICRO
                price = DevicePrice(device="npu", hour=rate)
                store.usage.put_device_price(price, now=now)
            case "drop":
                rate = 0
                store.usage.drop_device_price("npu", now=now)
    for ident, token in held.items():
        end(store, ident, token, now)
    store.usage.bill_devices(now)
    assert abs(bill_of(store).cost_nano - begun - due) <= pieces + 60


def test_a_node_that_says_less_later_changes_no_bill(store: SqlStore) -> None:
    models = tuple(Device(kind=DeviceKind.NPU, index=n, model="910b") for n in range(2))
    store.pool.record_nodes([Node(id=NodeId("n"), address="", devices=models)], now=NOW)
    store.usage.put_device_price(DevicePrice(device="npu:910b", hour=2 * MICRO), now=NOW)
    hold(store, "j", NOW)
    store.usage.bill_devices(NOW + 5)
    store.pool.record_nodes([Node(id=NodeId("n"), address="")], now=NOW + 10)  # its driver fails
    assert store.usage.spend(NOW + HOUR_S)["default"] == 3 * NANO
    store.usage.bill_devices(NOW + HOUR_S)
    assert bill_of(store).by_device == {"npu:910b": 3 * NANO}


def test_dpus_cost_and_emulated_ones_only_by_their_own_price(store: SqlStore) -> None:
    for device in ("dpu", "npu"):
        store.usage.put_device_price(DevicePrice(device=device, hour=MICRO), now=NOW)
    hold(store, "real", NOW, replace(NPUS, dpu_milli=500))
    hold(store, "emulated", NOW, replace(NPUS, dpu_milli=500, is_emulated=True))
    store.usage.bill_devices(NOW + HOUR_S)
    assert bill_of(store).by_device == {"npu": round(1.5 * NANO), "dpu": NANO // 2}
    rows = store.usage.summary(projects=None, now=NOW + HOUR_S)
    assert sum(row.cost_nano for row in rows) == 2 * NANO


def test_many_allocations_are_billed_some_at_a_time(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_billing, "_AT_ONCE", 3)
    store.usage.put_device_price(DevicePrice(device="npu", hour=MICRO), now=NOW)
    for number in range(10):
        hold(store, f"m{number}", NOW)
    store.usage.bill_devices(NOW + HOUR_S)
    store.usage.put_device_price(DevicePrice(device="npu", hour=0), now=NOW + HOUR_S + 60)
    bill = bill_of(store)
    assert (bill.lines, bill.cost_nano) == (20, 10 * 1_525_000_000)
