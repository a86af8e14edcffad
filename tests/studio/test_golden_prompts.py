"""When a conversion is accepted."""

from collections.abc import Mapping, Sequence

import pytest

from karez.core.errors import BrokenArtifact
from karez.studio.recipes.convert_gguf import GOLDEN, TOLERANCE, Probe, _compare

Told = Mapping[int, float] | None
SAID = [Probe(n, word, -0.9) for n, word in enumerate(("Paris", "four", "meows", "return"))]


def near(*changes: Told) -> list[Told]:
    """What the converted model says: the same, but after the first prompts."""
    same: list[Told] = [{n: -0.9, 99: -4.0} for n in range(len(SAID))]
    return [*changes, *same[len(changes) :]]


@pytest.mark.parametrize(
    "seen",
    [
        near(),
        near({0: -0.9 - 0.9 * TOLERANCE}),
        near({99: -0.8, 0: -1.0}, {99: -0.8, 1: -1.0}, {99: -0.8, 2: -1.0}),  # rounding turns ties
        near(None, None, None),
    ],
)
def test_what_is_near_enough_is_accepted(seen: Sequence[Told]) -> None:
    assert len(seen) == len(GOLDEN)
    assert 0 <= _compare("m", SAID, seen) <= TOLERANCE


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (near({0: -0.9 - 1.1 * TOLERANCE}), "capital of France.*has -1.285"),
        (near({0: -0.9 + 1.1 * TOLERANCE}), "capital of France"),
        (near({99: -0.1}), "'Paris', .* is not among its likeliest"),
        ([None] * len(GOLDEN), "nothing was compared"),
    ],
)
def test_what_is_not_is_refused_in_words(seen: Sequence[Told], words: str) -> None:
    with pytest.raises(BrokenArtifact, match=words):
        _compare("m", SAID, seen)
