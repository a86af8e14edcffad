"""Tokens are drawn as their probabilities say."""

from typing import Any

import pytest
import torch

from karez.engines.generation import Asked
from karez.engines.token_choice import choose

SCORES = torch.tensor([0.0, 1.0, 2.0, 3.0, -1.0])
DRAWS = 4000


def asked(**more: Any) -> Asked:
    return Asked(tokens=[1], most=9, **more)


def shares(one: Asked) -> torch.Tensor:
    torch.manual_seed(0)
    drawn = torch.tensor([choose(SCORES, one, 0) for _ in range(DRAWS)])
    return torch.bincount(drawn, minlength=len(SCORES)) / DRAWS


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_a_temperature_flattens_the_probabilities(temperature: float) -> None:
    expected = torch.softmax(SCORES / temperature, 0)
    assert shares(asked(temperature=temperature)).sub(expected).abs().max() < 0.03


def test_no_temperature_is_the_likeliest() -> None:
    assert choose(SCORES, asked(temperature=0.0), 0) == 3


@pytest.mark.parametrize(
    ("more", "kept"), [({"top_k": 2}, [2, 3]), ({"top_p": 0.6}, [3]), ({"top_p": 0.9}, [1, 2, 3])]
)
def test_only_the_likeliest_are_drawn_where_that_is_asked(
    more: dict[str, float], kept: list[int]
) -> None:
    found = shares(asked(**more))
    assert found.nonzero().flatten().tolist() == kept
    expected = torch.softmax(SCORES[kept], 0)
    assert found[kept].sub(expected).abs().max() < 0.03


def test_a_seed_draws_the_same_and_other_steps_draw_others() -> None:
    flat = torch.zeros(1000)
    first = [choose(flat, asked(seed=5), step) for step in range(20)]
    torch.rand(3)
    assert [choose(flat, asked(seed=5), step) for step in range(20)] == first
    assert len(set(first)) > 15
    assert [choose(flat, asked(seed=6), step) for step in range(20)] != first


def test_the_nucleus_of_a_flat_distribution_is_not_cut_short() -> None:
    flat = torch.zeros(5000)  # more tokens than are sorted first
    drawn = {choose(flat, asked(top_p=0.99), step) for step in range(3000)}
    assert len(drawn) > 2048 * 0.9
