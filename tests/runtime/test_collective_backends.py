"""Aborted collectives: gloo for real, devices as their documentation describes them."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import torch
import torch.distributed as dist

from karez.core.errors import BadRequest
from karez.runtime.backend_registry import collective_backend
from karez.runtime.device_backends import HcclBackend, NcclBackend
from karez.runtime.gloo_backend import GlooBackend
from karez.runtime.membership import Membership
from karez.runtime.process_group import ProcessGroup


@dataclass
class DocumentedNpu:
    """torch_npu.npu as its documentation (7.2, `stop_device`, `restart_device`) describes it."""

    obeys: bool = True
    calls: list[tuple[str, int]] = field(default_factory=list)

    def stop_device(self, device_id: int) -> int:
        self.calls.append(("stop", device_id))
        return 0 if self.obeys else 1

    def restart_device(self, device_id: int, rebuild_all_resource: bool = False) -> None:
        del rebuild_all_resource
        self.calls.append(("restart", device_id))


class QueuedGloo(GlooBackend):
    """Gloo, treated as a backend whose futures are done before the work is."""

    is_queued = True


@pytest.fixture
def store() -> Iterator[str]:
    kept = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, use_libuv=False)
    yield f"127.0.0.1:{kept.port}"
    del kept


def test_hccl_stops_the_device_once_and_restarts_it_before_the_next_group() -> None:
    npu = DocumentedNpu()
    hccl = HcclBackend(npu, torch.device("privateuseone", 3))
    hccl.begin_forming()
    hccl.abort()  # nothing is formed: there is nothing to end
    hccl.mark_formed()
    hccl.abort()
    hccl.abort()
    hccl.leave()
    hccl.begin_forming()
    hccl.begin_forming()
    assert npu.calls == [("stop", 3), ("restart", 3)]


def test_hccl_does_not_restart_a_device_that_did_not_stop() -> None:
    npu = DocumentedNpu(obeys=False)
    hccl = HcclBackend(npu, torch.device("privateuseone", 0))
    hccl.mark_formed()
    hccl.abort()
    hccl.begin_forming()
    assert npu.calls == [("stop", 0)]


def test_nccl_aborts_only_a_group_that_was_formed() -> None:
    nccl = NcclBackend(torch.device("cuda", 1))
    nccl.abort()  # would raise: there is no process group
    assert nccl.device == torch.device("cuda", 1)


def meet_forever(group: ProcessGroup) -> None:
    while True:
        group.barrier()


@pytest.mark.parametrize("gloo", [GlooBackend, QueuedGloo])
def test_a_collective_with_a_missing_rank_ends_when_the_group_is_aborted(
    store: str, gloo: type[GlooBackend]
) -> None:
    group = ProcessGroup(gloo())
    group.arm()
    group.rebuild(Membership(generation=1, rank=0, world=1, store=store))
    row = torch.tensor([2.0, 4.0])
    group.wait(group.start_all_reduce(row))
    assert row.tolist() == [2.0, 4.0]
    threading.Thread(target=group.abort).start()
    with pytest.raises(RuntimeError, match="aborted"):
        meet_forever(group)
    group.shutdown()
    group.arm()
    group.rebuild(Membership(generation=2, rank=0, world=1, store=store))
    group.barrier()
    group.shutdown()


def test_unknown_and_unavailable_backends_are_refused() -> None:
    for name in ("hccl", "nccl", "mpi"):
        with pytest.raises(BadRequest):
            collective_backend(name)


RANK = """
import sys, threading
import torch, torch.distributed as dist
from karez.runtime.membership import Membership
from karez.runtime.process_group import ProcessGroup

rank, store = int(sys.argv[1]), sys.argv[2]
group = ProcessGroup()
group.arm()
group.rebuild(Membership(generation=1, rank=rank, world=2, store=store))
with group.extended():
    part = dist.new_group([0, 1])
print("formed", flush=True)
if rank:
    sys.stdin.read()  # it never comes to the collective
threading.Timer(0.1, group.abort).start()
try:
    dist.all_reduce(torch.ones(4), group=part)
except RuntimeError as error:
    print("ended")
"""


@pytest.mark.story
def test_an_abort_reaches_a_group_that_code_formed_of_some_of_the_ranks(store: str) -> None:
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), store],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        said, _ = ranks[0].communicate(timeout=60)
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()
    assert said == "formed\nended\n"
