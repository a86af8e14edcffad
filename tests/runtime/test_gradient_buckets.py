"""Buckets of gradients: what is copied in comes back, and numbers of the step travel along."""

import pytest
import torch

from karez.runtime.gradient_buckets import BUCKET_BYTES, FIRST_BYTES, make_buckets
from karez.runtime.step_numbers import NUMBERS, StepNumbers, read_numbers, write_numbers

CPU = torch.device("cpu")


def parameters(*sizes: int, dtype: torch.dtype = torch.float32) -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.zeros(size, dtype=dtype)) for size in sizes]


def test_every_parameter_is_in_one_bucket_the_last_first_and_the_first_bucket_is_small() -> None:
    made = parameters(*[300_000] * 40)
    buckets = make_buckets(made, CPU, numbers=6)
    told = [p for bucket in buckets for p in bucket.parameters]
    assert [id(p) for p in told] == [id(p) for p in reversed(made)]
    sizes = [(bucket.flat.numel() - bucket.numbers.numel()) * 4 for bucket in buckets]
    assert FIRST_BYTES <= sizes[0] < 2.3 * FIRST_BYTES
    assert all(size <= BUCKET_BYTES + 300_000 * 4 for size in sizes)
    assert [bucket.numbers.numel() for bucket in buckets] == [6] + [0] * (len(buckets) - 1)


def test_gradients_of_16_bits_leave_the_numbers_to_a_bucket_of_32() -> None:
    buckets = make_buckets(parameters(8, 8, dtype=torch.bfloat16), CPU, numbers=3)
    assert [bucket.flat.dtype for bucket in buckets] == [torch.float32, torch.bfloat16]
    assert buckets[0].numbers.numel() == 3
    assert not buckets[0].parameters


def test_what_is_filled_is_scaled_and_given_back_without_a_copy() -> None:
    first, second = parameters(3, 2)
    (bucket,) = make_buckets([first, second], CPU, numbers=0)
    first.grad = torch.tensor([2.0, 4.0, 6.0])
    bucket.fill(0.5)
    bucket.give_back()
    assert first.grad.tolist() == [1.0, 2.0, 3.0]
    assert second.grad is not None
    assert second.grad.tolist() == [0.0, 0.0]
    first.grad += 1  # accumulated in place, as without zero_grad
    bucket.fill(0.5)
    assert bucket.flat.tolist() == [0.0, 0.0, 1.0, 1.5, 2.0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_gradient_that_is_not_finite_shows_in_the_total(bad: float) -> None:
    (parameter,) = parameters(5)
    (bucket,) = make_buckets([parameter], CPU, numbers=3)
    parameter.grad = torch.tensor([0.0, 1.0, bad, 3.0, 4.0])
    bucket.fill(1.0)
    assert not torch.isfinite(bucket.total())


def test_sparse_gradients_travel_as_dense_ones() -> None:
    parameter = torch.nn.Parameter(torch.zeros(4, 2))
    (bucket,) = make_buckets([parameter], CPU, numbers=0)
    parameter.grad = torch.sparse_coo_tensor(
        torch.tensor([[1]]), torch.tensor([[2.0, 4.0]]), (4, 2), check_invariants=True
    )
    bucket.fill(0.5)
    assert bucket.flat.view(4, 2)[1].tolist() == [1.0, 2.0]


def test_numbers_of_each_rank_survive_a_sum_over_the_ranks() -> None:
    told = [
        StepNumbers(digest=0xDEADBEEF, snapshot_every=1),
        StepNumbers(digest=0, snapshot_every=100, wants_checkpoint=True),
        StepNumbers(digest=0xFFFFFFFF, snapshot_every=7, stops_after=10_000_007),
    ]
    rows = torch.ones(3, 3 * NUMBERS)
    for rank, own in enumerate(told):
        write_numbers(rows[rank], rank, own)
    assert read_numbers(rows.sum(0)) == told
