"""Nodes in the store, their overrides and maintenance windows."""

from karez.core.devices import Health
from karez.core.nodes import MaintenanceWindow, NodeId, NodeOverride, NodeState
from karez.store.sql import SqlStore
from tests.fakes import cpu_node


def test_a_lost_node_is_ready_when_seen_again_and_a_cordon_stays(store: SqlStore) -> None:
    store.pool.record_nodes([cpu_node("a"), cpu_node("b")], now=1.0)
    store.pool.set_node(NodeId("a"), NodeState.LOST)
    store.pool.set_node(NodeId("b"), NodeState.CORDONED)
    store.pool.record_nodes([cpu_node("a"), cpu_node("b")], now=2.0)
    assert [(n.id, n.state, n.seen_at) for n in store.pool.nodes()] == [
        ("a", NodeState.READY, 2.0),
        ("b", NodeState.CORDONED, 2.0),
    ]
    assert not store.pool.set_node(NodeId("none"), NodeState.READY)
    assert [n.id for n in store.pool.nodes([NodeId("b"), NodeId("none")])] == ["b"]
    assert store.pool.nodes([]) == []


def test_overrides_and_windows_outlive_reports_of_the_node(store: SqlStore) -> None:
    node = cpu_node("a", 2)
    store.pool.record_nodes([node], now=1.0)
    said = NodeOverride(
        supernode="s1", site="north", labels={"zone": "a"}, health={"cpu:1": Health.SEPARATED}
    )
    assert store.pool.set_override(NodeId("a"), said)
    assert not store.pool.set_override(NodeId("x"), said)
    windows = [
        MaintenanceWindow(starts_at=20.0, ends_at=30.0),
        MaintenanceWindow(starts_at=5.0, ends_at=6.0, reason="firmware"),
    ]
    assert store.pool.set_windows(NodeId("a"), windows)
    store.pool.record_nodes([node], now=2.0)
    (seen,) = store.pool.nodes()
    assert (seen.supernode, seen.site, seen.labels) == ("s1", "north", {"zone": "a"})
    assert [device.health for device in seen.devices] == [Health.HEALTHY, Health.SEPARATED]
    assert [window.starts_at for window in seen.windows] == [5.0, 20.0]
    assert store.pool.overrides() == {NodeId("a"): said}
    assert store.pool.set_override(NodeId("a"), NodeOverride())
    assert store.pool.set_windows(NodeId("a"), [])
    (seen,) = store.pool.nodes()
    assert (seen.supernode, seen.windows) == (node.supernode, ())
