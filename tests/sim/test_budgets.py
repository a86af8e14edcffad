"""A project spends its limit: its training yields, waits for money, and goes on without a loss."""

from karez.core.device_prices import DevicePrice
from karez.core.identity import Project, ProjectLimits
from karez.core.ledger import Bill, verify
from karez.core.prices import MICRO, NANO
from karez.core.workloads import State, WorkloadId
from tests.sim.fake_cloud import HOUR_S, FakeCloud


def bill_of(cloud: FakeCloud) -> Bill:
    bill = Bill(project="default")
    while lines := cloud.store.usage.ledger("default", after=bill.lines, limit=1000):
        verify(bill, lines)
    return bill


def test_training_yields_at_the_limit_and_ends_once_there_is_money(cloud: FakeCloud) -> None:
    store = cloud.store
    store.usage.put_device_price(DevicePrice(device="cpu", hour=MICRO), now=cloud.timeline.now())
    store.access.add_project(Project(name="default", limits=ProjectLimits(spend_nano=20 * NANO)))
    cloud.look_every(HOUR_S)
    name = cloud.submit(ranks=2, steps=48, preemptible=True)
    for _ in range(40):
        cloud.run(HOUR_S)
        cloud.manager.bill()
        cloud.check()
    assert cloud.state(name) == State.QUEUED
    waits = cloud.job(name)
    assert "has spent its 20 for this month" in waits.status.reason
    assert waits.status.step > 0
    spent = bill_of(cloud).cost_nano
    assert 20 * NANO <= spent <= 28 * NANO  # control looks each hour, and a step takes one
    store.access.set_quota(Project(name="default", limits=ProjectLimits(spend_nano=900 * NANO)))
    cloud.run_until_ended(name)
    cloud.manager.bill()
    assert cloud.state(name) == State.SUCCEEDED
    bill = bill_of(cloud)
    held = store.workloads.held(WorkloadId(name))
    assert len(held) == 2
    hours = sum((one.until or 0.0) - one.since for one in held) * 2 / HOUR_S
    assert abs(bill.cost_nano - hours * NANO) < 1000
    cloud.check_empty()
