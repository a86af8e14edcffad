"""Cutting collectives off: gloo's for real, the devices' as their documentation describes them."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import torch
import torch.distributed as dist

from karez.core.errors import BadRequest
from karez.runtime.collective_backends import (
    GlooBackend,
    HcclBackend,
    NcclBackend,
    collective_backend,
)
from karez.runtime.process_group import Membership, ProcessGroup


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


def test_a_device_is_stopped_once_and_taken_up_again_before_the_next_group() -> None:
    npu = DocumentedNpu()
    hccl = HcclBackend(npu, 3)
    hccl.begin()
    hccl.cut()  # nothing is formed: there is nothing to end
    hccl.formed()
    hccl.cut()
    hccl.cut()
    hccl.forget()
    hccl.begin()
    hccl.begin()
    assert npu.calls == [("stop", 3), ("restart", 3)]


def test_a_device_that_does_not_stop_is_not_restarted() -> None:
    npu = DocumentedNpu(obeys=False)
    hccl = HcclBackend(npu)
    hccl.formed()
    hccl.cut()
    hccl.begin()
    assert npu.calls == [("stop", 0)]


def test_nccl_aborts_only_what_was_formed() -> None:
    nccl = NcclBackend(1)
    nccl.cut()  # would raise: there is no process group
    assert nccl.device == torch.device("cuda", 1)


def meet_for_ever(group: ProcessGroup) -> None:
    while True:
        group.barrier()


@pytest.mark.parametrize("gloo", [GlooBackend, QueuedGloo])
def test_a_collective_with_one_who_does_not_come_ends_when_it_is_cut(
    store: str, gloo: type[GlooBackend]
) -> None:
    group = ProcessGroup(gloo())
    group.arm()
    group.rebuild(Membership(generation=1, rank=0, world=1, store=store))
    row = torch.tensor([2.0, 4.0])
    assert group.all_reduce_mean([row], digest=7)
    assert row.tolist() == [2.0, 4.0]
    threading.Thread(target=group.abort).start()
    with pytest.raises(RuntimeError, match="aborted"):
        meet_for_ever(group)
    group.shutdown()
    group.arm()
    group.rebuild(Membership(generation=2, rank=0, world=1, store=store))
    group.barrier()
    group.shutdown()


def test_collectives_that_cannot_be_had_are_refused_with_what_to_do() -> None:
    for name in ("hccl", "nccl", "mpi"):
        with pytest.raises(BadRequest):
            collective_backend(name)
