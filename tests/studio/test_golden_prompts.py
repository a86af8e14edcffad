"""When a conversion is accepted."""

from collections.abc import Sequence

import pytest

from karez.core.errors import BrokenArtifact
from karez.studio.recipes.convert_gguf import GOLDEN, TOLERANCE, Probe, _compare

SAID: list[Probe] = [(word, -0.5) for word in ("Paris", "four", "meows", "return")]


def near(*changes: Probe | None) -> list[Probe | None]:
    """What the converted model says: the same, but after the first prompts."""
    return [*changes, *SAID[len(changes) :]]


@pytest.mark.parametrize(
    "seen",
    [
        near(),
        near(("Paris", -0.5 - 0.9 * TOLERANCE)),
        near(("London", -0.6)),  # a near tie, which rounding turns
        near(None, None, None),
    ],
)
def test_what_is_near_enough_is_accepted(seen: Sequence[Probe | None]) -> None:
    assert len(seen) == len(GOLDEN)
    assert 0 <= _compare("m", SAID, seen) <= TOLERANCE


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (near(("Paris", -0.5 - 1.1 * TOLERANCE)), "capital of France"),
        (near(("London", -0.5), ("five", -0.5)), "London"),
        (near(("London", -0.5), None, None), "London"),
        ([None] * len(GOLDEN), "nothing was compared"),
    ],
)
def test_what_is_not_is_refused_in_words(seen: Sequence[Probe | None], words: str) -> None:
    with pytest.raises(BrokenArtifact, match=words):
        _compare("m", SAID, seen)
