"""The session that user code opens: training that goes on after faults.

    with training.session() as run:
        run.track(model=model, optimizer=optimizer)
        for batch in run.steps(loader, total=1000):
            loss = ...; loss.backward(); optimizer.step(); optimizer.zero_grad()
            run.commit(loss=loss)

`karez.runtime.run` says what a run does in a step.
"""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from karez.runtime.backend_registry import collective_backend
from karez.runtime.device import collectives_for, granted_devices, memory_full
from karez.runtime.process_group import ProcessGroup
from karez.runtime.rank_environment import rank_environment
from karez.runtime.run import Run
from karez.runtime.session_options import SessionOptions


@contextmanager
def session(
    *,
    seed: int = 0,
    replays: int = 1,
    spike: float = 0.0,
    snapshot_every: int = 0,
    hide_world: bool = False,
    collectives: str = "auto",
) -> Iterator[Run]:
    """Join the gang. Outside a cloud it is a gang of one, and no snapshot is kept.

    Args:
        seed: For the random generators of Python, NumPy and torch, the same on all ranks;
            reseed by `run.rank` afterwards where ranks should differ.
        replays: How often a step whose loss is not finite is repeated with the same batch,
            before that batch is left out.
        spike: Treat a loss so many standard deviations above the mean of the last 64 like one
            that is not finite. 0: never.
        snapshot_every: Steps between two snapshots, which is how many steps a fault can cost.
            0: each step, unless snapshots would cost more than about 1% of short steps, or 3% of
            steps of a second and more; then as many as keep the cost there. Sharded state is kept
            at each step.
        hide_world: Let libraries that would form a group of their own, such as Accelerate and
            the Hugging Face Trainer, see a single process; the session runs the collectives
            between ranks.
        collectives: Backend of the session's collectives. `auto` is that of the device: `hccl` for
            NPUs, `nccl` for GPUs, `gloo` for CPUs and for shares of one device. `gloo` works
            with every device, by way of the host's memory.

    Raises:
        BadRequest: The backend is unknown or not available on this node.
        DeviceUnavailable: A device that this rank was granted cannot be opened.
        DeviceLost: A device stopped working; in a cloud, the rank goes on with another.
        DeviceMemoryFull: The code in the session needs more memory than the device has.
    """
    environment = rank_environment()
    devices = granted_devices()
    if hide_world:
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            os.environ.pop(name, None)  # noqa: TID251 - libraries read it, and must find one rank
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) if environment.steward else 1))
    _seed_generators(seed)
    backend = collectives_for(devices[0]) if collectives == "auto" else collectives
    group = ProcessGroup(collective_backend(backend))
    options = SessionOptions(seed=seed, replays=replays, spike=spike, snapshot_every=snapshot_every)
    run = Run(environment, devices=devices, options=options, group=group)
    try:
        yield run
    except torch.OutOfMemoryError as error:
        raise memory_full(error, run.device) from error
    except RuntimeError as error:
        run._raise_if_lost(error)
        raise
    run._finish()


def _seed_generators(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
