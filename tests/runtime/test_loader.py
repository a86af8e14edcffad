"""Batches by step number: each step gets the same batch, however often it is read."""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from karez.runtime.loader import Listed
from karez.runtime.replay_loader import Replay


class Rows(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> torch.Tensor:
        noise = random.random() + float(np.random.rand()) + float(torch.rand(()))
        return torch.tensor([index, noise])


class Stream(IterableDataset[torch.Tensor]):
    def __iter__(self) -> Iterator[torch.Tensor]:
        info = torch.utils.data.get_worker_info()
        first, every = (info.id, info.num_workers) if info else (0, 1)
        for number in range(first, 20, every):
            yield torch.tensor([float(number), float(torch.rand(()))])


class Remembering:
    """A source with a state of its own, which cannot be read from the beginning twice."""

    def __init__(self) -> None:
        self.at = 0

    def __iter__(self) -> Iterator[int]:
        while True:
            self.at += 1
            yield self.at

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.at = state["at"]


def loaders() -> dict[str, object]:
    return {
        "shuffled": DataLoader(Rows(), batch_size=4, shuffle=True),
        "workers": DataLoader(Rows(), batch_size=4, shuffle=True, num_workers=2),
        "stream": DataLoader(Stream(), batch_size=4, num_workers=2),
        "generator": DataLoader(
            Rows(), batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(3)
        ),
    }


@pytest.mark.parametrize("name", ["shuffled", "workers", "stream", "generator"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_loader_read_again_gives_the_same_batches(name: str) -> None:
    first = Replay(loaders()[name], seed=7)  # type: ignore[arg-type]
    want = [first.at(step, 0, 1) for step in range(13)]  # more than two epochs
    torch.manual_seed(99)  # whatever else draws random numbers changes nothing
    random.seed(99)
    again = Replay(loaders()[name], seed=7)  # type: ignore[arg-type]
    again.load_state_dict(first.state_dict())
    for step in (12, 11, 12):
        assert torch.equal(again.at(step, 0, 1), want[step])


def test_fetching_leaves_the_random_generators_as_they_were() -> None:
    replay = Replay(loaders()["shuffled"], seed=7)  # type: ignore[arg-type]
    before = torch.get_rng_state(), random.getstate()
    replay.at(0, 0, 1)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


def test_a_source_with_a_state_is_set_to_its_position_instead_of_being_reread() -> None:
    first = Replay(Remembering(), seed=0)
    assert [first.at(step, 0, 1) for step in range(6)] == [1, 2, 3, 4, 5, 6]
    fresh = Remembering()
    again = Replay(fresh, seed=0)
    again.load_state_dict(first.state_dict())
    assert again.at(5, 0, 1) == 6
    assert again.at(6, 0, 1) == 7


def test_a_list_gives_the_same_batches_as_an_iterable_that_is_reread() -> None:
    rows = [torch.tensor([n]) for n in range(7)]
    read, listed = Replay(Again(rows)), Listed(batches=rows)
    for step in (0, 1, 6, 7, 13, 14, 20, 20, 19):
        assert torch.equal(listed.at(step, 0, 1), read.at(step, 0, 1))
    with pytest.raises(ValueError, match="no batches"):
        Listed(batches=[])


class Again:
    """Any iterable."""

    def __init__(self, rows: list[torch.Tensor]) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(self.rows)


@pytest.mark.parametrize("back", [1, 5, 12, 20])
def test_accelerates_seedable_sampler_is_set_to_the_epoch_it_goes_back_to(back: int) -> None:
    """Its sampler is inside the batch sampler, and counts its epochs by itself."""
    from accelerate.data_loader import prepare_data_loader

    def source() -> Replay:
        torch.manual_seed(42)
        data: Any = torch.utils.data.TensorDataset(torch.arange(64))
        loader: Any = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True)
        made = prepare_data_loader(
            loader, num_processes=1, process_index=0, use_seedable_sampler=True
        )
        return Replay(getattr(made, "base_dataloader", made))

    read, fresh = source(), source()
    first = [read.at(n, 0, 1)[0].tolist() for n in range(21)]
    again = [read.at(n, 0, 1)[0].tolist() for n in range(20 - back, 24)]
    assert again[: back + 1] == first[20 - back :]
    assert again == [fresh.at(n, 0, 1)[0].tolist() for n in range(20 - back, 24)]
