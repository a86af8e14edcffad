"""Placement speed: 12,500 nodes of 8 devices, the 151 worker shapes of openb, one core.

docs/scheduling.md has the rates of other schedulers and their conditions: they place through an API
server and bind pods; this benchmark does not.
"""

import time
from statistics import median

import numpy as np
from report import report, traces

from karez.core.devices import Device, DeviceKind
from karez.core.gangs import GangSpec, Topology
from karez.core.nodes import Node, NodeId
from karez.core.resource_requests import ResourceRequest
from karez.core.workloads import WorkloadId
from karez.scheduling.explain.explain import explain_all
from karez.scheduling.placement.capacity import Pool
from karez.scheduling.placement.inventory import Inventory, Row, Shape, build
from karez.scheduling.placement.node_selector import NodeSelector
from karez.scheduling.placement.placement import place_gang
from karez.scheduling.placement.pool_builder import free_pool
from karez.scheduling.placement.request_mix import request_mix
from karez.scheduling.placement.scores import Policy
from karez.scheduling.queue.order import PendingWorkload
from karez.scheduling.snapshot import Snapshot
from karez.simulation import openb

NODES, WIDTH, SUPERNODE = 12_500, 8, 48
STEPS = 40_000


def churn(policy: Policy, shapes: list[Shape], chance: np.random.Generator) -> dict[str, object]:
    """Measure the rate of placements at 88% load: release a worker, place a worker, repeat."""
    rows = [
        Row(
            name=f"n{n:05d}",
            devices=((f"gpu:{n // 3125}", 1000),) * WIDTH,
            bulk=(128_000, 768 << 30, 0, 0),
            supernode=f"s{n // SUPERNODE}",
        )
        for n in range(NODES)
    ]
    inventory = build(rows)
    selector = NodeSelector(inventory=inventory, mix=request_mix(shapes), policy=policy)
    live: list[tuple[int, Shape, int]] = []
    asked = [shapes[i] for i in chance.integers(len(shapes), size=400_000)]
    while inventory.free_milli > 0.12 * inventory.capacity_milli:
        for _ in range(500):
            step(selector, inventory, asked.pop(), live)
    leaving = chance.random(STEPS)
    before = time.process_time()
    failed = 0
    for index in range(STEPS):
        gone = int(leaving[index] * len(live))
        live[gone], live[-1] = live[-1], live[gone]
        inventory.release(*live.pop())
        failed += not step(selector, inventory, asked[index], live)
    spent_s = time.process_time() - before
    bar = {Policy.BEST_FIT: 40_000}.get(policy, 15_000)
    return {
        "what": f"{policy.name.lower()} in churn, {len(live):,} live, {failed} refused",
        "value": f"{STEPS / spent_s:,.0f}/s",
        "bar": f">= {bar:,}/s",
    }


def step(
    selector: NodeSelector, inventory: Inventory, shape: Shape, live: list[tuple[int, Shape, int]]
) -> bool:
    """Place one worker. Returns whether it fits."""
    found = selector.select(shape)
    if found is None:
        return False
    live.append((found[0], shape, inventory.allocate(found[0], shape, found[1])))
    return True


def big_pool(chance: np.random.Generator) -> Pool:
    """Make a pool of 100,000 devices in supernodes of 48 nodes, 55% of the nodes busy."""
    devices = tuple(Device(kind=DeviceKind.NPU, index=index) for index in range(WIDTH))
    nodes = [
        Node(id=NodeId(f"n{n:05d}"), address="", devices=devices, supernode=f"s{n // SUPERNODE}")
        for n in range(NODES)
    ]
    pool = free_pool(nodes, ())
    pool.inventory.arrays.free[chance.random(NODES) < 0.55] = 0
    return pool


def gangs(chance: np.random.Generator) -> list[dict[str, object]]:
    """Place a gang of 1,024 devices; compare its supernodes with the optimum; fork the pool."""
    gang = GangSpec(
        min=128,
        want=128,
        each=(ResourceRequest(kind=DeviceKind.NPU, milli=8000),),
        topology=Topology.PREFER_SUPERNODE,
    )
    pool = big_pool(chance)
    times, forks, optimal = [], [], 0
    rounds = 200
    for _ in range(rounds):
        pool.inventory.arrays.free[:] = 1000
        pool.inventory.arrays.free[chance.random(NODES) < 0.55] = 0
        room = pool.room(gang.each[0])
        domain = pool.inventory.arrays.domain
        per_domain = np.bincount(domain, weights=room).astype(int)
        best = int(np.searchsorted(np.cumsum(np.sort(per_domain)[::-1]), 128) + 1)
        before = time.perf_counter()
        forked = pool.fork()
        forks.append(time.perf_counter() - before)
        before = time.perf_counter()
        grants = place_gang(gang, forked)
        times.append(time.perf_counter() - before)
        assert grants is not None
        used = {int(domain[pool.number_of[grant.node]]) for grant in grants}
        optimal += len(used) == (cp_sat(per_domain.tolist(), 128) or best)
    judge = "CP-SAT" if cp_sat([1], 1) else "counting; OR-Tools is absent"
    ms = sorted(1000 * value for value in times)
    return [
        {
            "what": "gang of 1,024 devices with commit, p99",
            "value": f"{ms[int(0.99 * rounds)]:.2f} ms (median {median(ms):.2f})",
            "bar": "<= 5 ms",
        },
        {
            "what": f"supernodes used are the fewest there can be, by {judge}",
            "value": f"{100 * optimal / rounds:.1f}% of {rounds}",
            "bar": ">= 95%",
        },
        {
            "what": "fork of 100,000 devices, median",
            "value": f"{1000 * median(forks):.3f} ms",
            "bar": "< 1 ms",
        },
    ]


def cp_sat(room: list[int], workers: int) -> int | None:
    """Compute the fewest supernodes that hold the workers; None without OR-Tools."""
    try:
        from ortools.sat.python import cp_model
    except ModuleNotFoundError:
        return None
    model = cp_model.CpModel()
    chosen = [model.new_bool_var(f"d{index}") for index in range(len(room))]
    model.add(sum(size * one for size, one in zip(room, chosen, strict=True)) >= workers)
    model.minimize(sum(chosen))
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    assert solver.solve(model) == cp_model.OPTIMAL
    fewest: float = solver.objective_value
    return round(fewest)


def explaining() -> dict[str, object]:
    """Explain a queue of 1,000 workloads: 40 shapes, three projects, 100 nodes."""
    devices = tuple(Device(kind=DeviceKind.NPU, index=index) for index in range(WIDTH))
    nodes = [
        Node(id=NodeId(f"n{n:03d}"), address="", devices=devices, supernode=f"s{n // 12}")
        for n in range(100)
    ]
    queue = [
        PendingWorkload(
            id=WorkloadId(f"j{n}"),
            project=f"p{n % 3}",
            gang=GangSpec(
                min=101 + n % 40,
                want=101 + n % 40,
                each=(ResourceRequest(kind=DeviceKind.NPU, milli=8000),),
            ),
            priority=0,
            since=float(n),
            order=n,
        )
        for n in range(1000)
    ]
    spent = []
    for _ in range(5):
        before = time.process_time()
        answers = explain_all(Snapshot(nodes=nodes, waiting=queue), now=1000.0)
        spent.append(time.process_time() - before)
        assert len(answers) == len(queue)
        assert all(why.changes for why in answers.values())
    return {
        "what": "1,000 waiting workloads explained",
        "value": f"{median(spent):.3f} s",
        "bar": "< 0.5 s",
    }


def main() -> None:
    """Run all measurements on one core."""
    chance = np.random.default_rng(1)
    with (traces("openb") / "openb_pod_list_default.csv").open() as file:
        pods = openb.read_pods(file, "pods")
    shapes = [
        Shape(devices=p.devices, milli=p.milli, bulk=(p.cpu_milli, p.memory_bytes, 0, 0))
        for p in pods
    ]
    rows = [churn(policy, shapes, chance) for policy in Policy]
    report("placing on 100,000 devices", [*rows, *gangs(chance), explaining()])


if __name__ == "__main__":
    main()
