"""What a request may say: several resources, roles, spares, node sets; and what is never broken."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

import karez
from karez.core.devices import Device, DeviceKind
from karez.core.gangs import GangRole, GangSpec
from karez.core.grants import Grant
from karez.core.identity import Project
from karez.core.jobfile import parse_job
from karez.core.node_affinity import NodeAffinity
from karez.core.nodes import MaintenanceWindow, Node, NodeId
from karez.core.resource_requests import ResourceRequest
from karez.core.resource_syntax import parse_resource_request, resource_request_from
from karez.scheduling.explain.feasibility import empty_pool, infeasible_reason
from karez.scheduling.placement.fit_report import explain_unplaced
from karez.scheduling.placement.placement import place_gang
from karez.scheduling.placement.pool_builder import free_pool
from karez.scheduling.queue.quota import is_within, within_quota
from tests.scheduling.test_snapshot import waiting

GIB = 1 << 30
NPU, CPU, DPU = DeviceKind.NPU, DeviceKind.CPU, DeviceKind.DPU
MEMORY, STORAGE = DeviceKind.MEMORY, DeviceKind.STORAGE


def rich(name: str, *, npus: int = 4, cores: int = 8, model: str = "910B", **labels: str) -> Node:
    """A node with some of everything."""
    devices = [Device(kind=NPU, index=i, model=model) for i in range(npus)]
    devices += [Device(kind=CPU, index=i) for i in range(cores)]
    devices += [Device(kind=DPU, index=0)]
    devices += [Device(kind=STORAGE, index=0, memory_bytes=100 * GIB)]
    return Node(
        id=NodeId(name), address="", devices=tuple(devices), memory_bytes=64 * GIB, labels=labels
    )


FILE = """
name = "large"
kind = "train"
command = ["python", "train.py"]
deadline = "2d"
expected_duration = "1d"
[gang]
workers = { min = 2, want = 4, max = 8 }
each = [
  { npu = 1, cpu = 2, memory = "8GiB", dpu = 0.25, storage = "10GiB", model = "910B|910C" },
  "gpu=1,speed=0.8",
]
on = ["zone=a", "n7"]
off = "n3"
spares = 1
[[gang.roles]]
name = "loader"
workers = 2
each = { cpu = 4 }
command = ["python", "load.py"]
[[gang.roles]]
name = "pool"
each = [{ memory = "16GiB" }]
on = "kind=memory"
"""


def test_one_grammar_says_it_all() -> None:
    spec = parse_job(FILE)
    gang = spec.gang
    assert (gang.min, gang.want, gang.max, gang.spares) == (2, 4, 8, 1)
    assert gang.each[0] == parse_resource_request(
        "npu=1,cpu=2,memory=8GiB,dpu=0.25,storage=10GiB,model=910B|910C"
    )
    assert gang.each[1].speed == 0.8
    assert gang.among == NodeAffinity(on=("zone=a", "n7"), off=("n3",))
    loader, pooled = gang.roles
    assert loader.command == ("python", "load.py")
    assert dict(pooled.each[0].amounts) == {MEMORY: 16 * GIB}
    assert spec.deadline_s == 2 * 86_400


@pytest.mark.parametrize(
    ("good", "bad", "complaint"),
    [
        ('model = "910B|910C"', 'gpu = 1, model = "x"', "npu and gpu in one alternative"),
        ("max = 8", "max = 3", "want=4 max=3"),
        ('off = "n3"', 'off = "n7"', "'n7' is in both `on` and `off`"),
        ("spares = 1", "spares = -1", "spares .*-1"),
        ('name = "pool"', 'name = "loader"', "each with a name of its own"),
        ('name = "pool"', 'name = "spare"', "role cannot be called 'spare'"),
        ('deadline = "2d"', 'deadline = "1h"', "cannot end within 1h"),
        ("dpu = 0.25", "dpu = -1", "negative.* -1 dpu"),
        ('memory = "16GiB"', 'memory = "0GiB"', "some bytes"),
        ('memory = "16GiB"', 'memory = "9000000TiB"', "9000000.0 TiB: no node has so many"),
        ("workers = 2", "workers = 0", "role loader needs 1 to"),
        ("each = { cpu = 4 }", "each = 3", "each = 3 should be such as"),
        ("each = { cpu = 4 }", "each = [3]", "or a list of alternatives"),
    ],
)
def test_contradictions_are_refused(good: str, bad: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_job(FILE.replace(good, bad, 1))


@pytest.mark.parametrize(
    ("each", "says"),
    [
        ("npu=16", "no node has more than 4"),
        ("npu=1,model=910Z", "there are 910B"),
        ("npu=1,cpu=64", "no node has more than 8"),
        ("npu=4,memory=1TiB", "no node has more than 64"),
        ("cpu=1,storage=1TiB", "no node has more than 100"),
    ],
)
def test_what_no_node_could_ever_hold_is_named(each: str, says: str) -> None:
    empty = empty_pool([rich("a"), rich("b")])
    assert says in infeasible_reason(GangSpec(each=(parse_resource_request(each),)), empty)


def test_what_some_node_holds_or_may_join_is_possible() -> None:
    empty = empty_pool([rich("a")])
    for each in ("npu=4", "npu=1,model=910B,cpu=8", "gpu=8", "memory=64GiB", "dpu=1,cpu=1"):
        gang = GangSpec(
            each=(ResourceRequest(),),
            roles=(GangRole(name="r", each=(parse_resource_request(each),)),),
        )
        assert infeasible_reason(gang, empty) == ""


def test_a_gang_has_all_its_roles_or_nothing() -> None:
    pool = free_pool([rich("a"), rich("b", npus=0, cores=16)], ())
    gang = GangSpec(
        min=4,
        want=4,
        each=(parse_resource_request("npu=1,cpu=1"),),
        roles=(
            GangRole(
                name="loader",
                workers=2,
                each=(parse_resource_request("cpu=4"),),
                among=NodeAffinity(off=("a",)),
            ),
            GangRole(
                name="store",
                each=(parse_resource_request("memory=32GiB"),),
                among=NodeAffinity(on=("b",)),
            ),
        ),
    )
    grants = place_gang(gang, pool)
    assert grants is not None
    roles = Counter(grant.role for grant in grants)
    assert roles == {"": 4, "loader": 2, "store": 1}
    assert {grant.node for grant in grants if grant.role == "loader"} == {"b"}
    pinned = [core for grant in grants if not grant.role for core, _ in grant.cores]
    assert sorted(pinned) == [0, 1, 2, 3]
    pool.release(grants)
    before = pool.inventory.arrays.bulk.copy()
    short = GangSpec(
        each=gang.each,
        roles=(*gang.roles, GangRole(name="x", each=(ResourceRequest(milli=99_000),))),
    )
    assert place_gang(short, pool) is None
    assert (pool.inventory.arrays.bulk == before).all()
    assert (pool.inventory.arrays.free[0] == 1000).all()
    assert "cpu" in explain_unplaced(short, pool)


def test_spares_stand_on_other_nodes_where_there_are_any() -> None:
    pool = free_pool([rich("a"), rich("b")], ())
    gang = GangSpec(min=3, want=3, each=(parse_resource_request("npu=1"),), spares=2)
    grants = place_gang(gang, pool)
    assert grants is not None
    assert [(g.node, g.role) for g in grants[3:]] == [("b", "spare"), ("b", "spare")]


def test_models_and_node_sets_hold_for_single_workers_too() -> None:
    nodes = [rich("a", zone="x"), rich("b", model="910C", zone="y"), rich("c", zone="y")]
    pool = free_pool(nodes, ())

    def places(each: str, **among: tuple[str, ...]) -> set[str]:
        found = set()
        for _ in range(12):
            grants = place_gang(
                GangSpec(each=(parse_resource_request(each),), among=NodeAffinity(**among)), pool
            )
            if grants is None:
                break
            found.add(str(grants[0].node))
        return found

    assert places("npu=1,model=910C") == {"b"}
    assert places("npu=1", on=("zone=y",), off=("b",)) == {"c"}
    assert places("npu=1", on=("a",)) == {"a"}
    why = explain_unplaced(
        GangSpec(each=(parse_resource_request("npu=1"),), among=NodeAffinity(on=("zone=z",))), pool
    )
    assert "not on zone=z" in why


def test_nothing_is_placed_that_would_run_into_maintenance() -> None:
    window = MaintenanceWindow(starts_at=1000.0, ends_at=2000.0)
    nodes = [rich("a"), rich("b")]
    nodes[0] = Node(id=nodes[0].id, address="", devices=nodes[0].devices, windows=(window,))
    pool = free_pool(nodes, (), now=0.0)
    gang = GangSpec(min=8, want=8, each=(parse_resource_request("npu=1"),))
    assert place_gang(gang, pool.fork(), until=999.0) is not None
    assert place_gang(gang, pool.fork(), until=1001.0) is None
    assert "maintenance" in explain_unplaced(gang, pool, until=1001.0)
    assert place_gang(gang, pool.fork()) is not None  # what can be stopped may use it until then
    assert not free_pool(nodes[:1], (), now=1500.0).nodes
    assert free_pool(nodes[:1], (), now=2000.0).next_maintenance_at is None


needs = st.builds(
    lambda npu, cpu, memory, dpu, storage: resource_request_from(
        {
            **({"npu": npu} if npu else {}),
            "cpu": cpu,
            "memory": memory * GIB,
            "dpu": dpu,
            "storage": storage * GIB,
        }
    ),
    st.sampled_from([0, 0.5, 1, 2]),
    st.sampled_from([0.5, 1, 3]),
    st.integers(0, 20),
    st.sampled_from([0, 0.25, 0.5]),
    st.integers(0, 40),
)
gangs = st.builds(
    lambda workers, need, loaders, other, spares: GangSpec(
        min=workers,
        want=workers + 1,
        each=(need,),
        spares=spares,
        roles=(GangRole(name="r", workers=loaders, each=(other,)),) if loaders else (),
    ),
    st.integers(1, 3),
    needs,
    st.integers(0, 2),
    needs,
    st.integers(0, 1),
)


def amounts(grants: list[Grant]) -> dict[str, Counter[DeviceKind]]:
    found: dict[str, Counter[DeviceKind]] = {}
    for grant in grants:
        found.setdefault(grant.node, Counter()).update(grant.amounts)
    return found


@given(asked=st.lists(gangs, max_size=8))
def test_no_resource_of_a_node_is_given_twice_and_what_is_given_back_is_free(
    asked: list[GangSpec],
) -> None:
    pool = free_pool([rich("a"), rich("b", npus=2)], ())
    fresh = pool.inventory.arrays.bulk.copy(), pool.inventory.arrays.free.copy()
    given_out: list[Grant] = []
    for gang in asked:
        grants = place_gang(gang, pool)
        if grants is None:
            continue
        given_out += grants
        assert sum(not g.role for g in grants) in (gang.min, gang.want)
        assert sum(g.role == "r" for g in grants) == sum(r.workers for r in gang.roles)
    for node, held in amounts(given_out).items():
        assert held[CPU] <= 8000
        assert held[NPU] <= (4000 if node == "a" else 2000)
        assert held[DPU] <= 1000
        assert held[MEMORY] <= 64 * GIB
        assert held[STORAGE] <= 100 * GIB
    cores = Counter[tuple[str, int]]()
    for grant in given_out:
        for core, milli in (*grant.cores, *(grant.devices if grant.kind == CPU else ())):
            cores[grant.node, core] += milli
    assert all(milli <= 1000 for milli in cores.values())
    assert not (pool.inventory.arrays.bulk < 0).any()
    pool.release(given_out)
    assert (pool.inventory.arrays.bulk == fresh[0]).all()
    assert (pool.inventory.arrays.free == fresh[1]).all()


@given(
    gang=gangs,
    caps=st.dictionaries(
        st.sampled_from([NPU, CPU, MEMORY, DPU]), st.integers(0, 40 * GIB), max_size=3
    ),
)
def test_quotas_hold_for_every_kind_roles_and_spares_counted(
    gang: GangSpec, caps: dict[DeviceKind, int]
) -> None:
    projects = {"p": Project(name="p", quota=caps)}
    allowed, barred = within_quota(waiting("w", gang), projects, {})
    pool = free_pool([rich("a"), rich("b"), rich("c")], ())
    grants = None if barred else place_gang(allowed, pool)
    used: dict[tuple[str, DeviceKind], int] = {}
    for grant in grants or ():
        for kind, amount in grant.amounts.items():
            used["p", kind] = used.get(("p", kind), 0) + amount
    assert all(is_within("p", kind, projects, used) for kind in caps)
    if barred:
        assert "quota of project p" in barred


def test_python_speaks_the_same_words() -> None:
    made = karez.gang(
        "2:4:8",
        ["npu=1,cpu=2,memory=8GiB,dpu=0.25,storage=10GiB,model=910B|910C", "gpu=1,speed=0.8"],
        on=["zone=a", "n7"],
        off=["n3"],
        roles=["loader:2:cpu=4"],
        spares=1,
    )
    filed = parse_job(FILE).gang
    assert (made.min, made.want, made.max, made.each) == (2, 4, 8, filed.each)
    assert (made.among, made.spares) == (filed.among, 1)
    for bad, complaint in (
        ("x", "workers 'x' .*MIN:WANT"),
        ("1:2:3:4", "workers '1:2:3:4' .*MIN:WANT"),
        ("4:2", "min=4 want=2"),
    ):
        with pytest.raises(ValueError, match=complaint):
            karez.gang(bad)
