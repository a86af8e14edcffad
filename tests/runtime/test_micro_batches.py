"""Steps of several batches: each rank has its rows, and all rows are had once."""

from collections import namedtuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from karez.core.errors import BadRequest
from karez.runtime.micro_batches import MicroBatches, micro_batches, rows_of

Pair = namedtuple("Pair", "rows names")


def test_rows_are_taken_from_whatever_a_batch_is_made_of() -> None:
    rows = torch.arange(6).reshape(3, 2)
    batch = {
        "rows": rows,
        "pair": Pair(rows, ["a", "b", "c"]),
        "rate": 0.5,
        "each": torch.tensor(7),
    }
    mine = rows_of(batch, 1, 2)
    assert mine["rows"].tolist() == [[2, 3]]
    assert isinstance(mine["pair"], Pair)
    assert (mine["pair"].names, mine["rate"], int(mine["each"])) == (["b"], 0.5, 7)


def test_a_rank_without_rows_is_told_what_to_do() -> None:
    with pytest.raises(BadRequest, match="drop_last"):
        rows_of(torch.zeros(2, 1), 2, 3)


@given(world=st.integers(1, 4), count=st.integers(1, 3), step=st.integers(0, 5))
def test_the_ranks_together_have_each_row_of_a_step_once(world: int, count: int, step: int) -> None:
    loader = [torch.arange(n, n + 5) for n in range(0, 60, 5)]
    steps = [micro_batches(loader, count).at(step, rank, world) for rank in range(world)]
    had = sorted(int(row) for batches in steps for batch in batches for row in batch)
    first = step * count
    wanted = [row % 60 for n in range(first, first + count) for row in range(5 * n, 5 * n + 5)]
    assert had == sorted(wanted)
    assert all(len(batches) == count for batches in steps)


def test_a_new_process_reads_from_the_epoch_on_that_it_needs() -> None:
    read: list[int] = []

    class Rows(torch.utils.data.Dataset[int]):
        def __len__(self) -> int:
            return 6

        def __getitem__(self, index: int) -> int:
            read.append(index)
            return index

    def fresh() -> MicroBatches:
        return micro_batches(torch.utils.data.DataLoader(Rows(), batch_size=2, shuffle=True), 1)

    before = fresh()
    batches = [before.at(step, 0, 1)[0].tolist() for step in range(12)]
    state = before.state_dict()
    after = fresh()
    after.load_state_dict(state)
    read.clear()
    assert after.at(11, 0, 1)[0].tolist() == batches[11]
    assert len(read) == 6  # an epoch, not four
