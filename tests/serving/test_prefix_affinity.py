"""Which replica a request goes to."""

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from karez.serving import prefix_affinity
from karez.serving.prefix_affinity import BLOCK_BYTES, PrefixAffinity, blocks_of

WORDS = st.lists(st.sampled_from(["a", "b"]), max_size=6)


def prompt(words: list[str]) -> dict[str, Any]:
    return {"prompt": "".join(word * BLOCK_BYTES for word in words)}


@given(one=WORDS, other=WORDS, tail=st.text(max_size=40))
def test_prompts_share_as_many_blocks_as_they_begin_alike(
    one: list[str], other: list[str], tail: str
) -> None:
    alike = 0
    while alike < min(len(one), len(other)) and one[alike] == other[alike]:
        alike += 1
    first, second = blocks_of(prompt(one)), blocks_of(prompt(other))
    assert len(first) == len(one)
    assert len(set(first) & set(second)) == alike
    assert first[:alike] == second[:alike]


def test_a_conversation_that_goes_on_begins_as_it_was() -> None:
    said = [{"role": "user", "content": "water " * 200}]
    later = [*said, {"role": "assistant", "content": "yes"}, {"role": "user", "content": "more"}]
    before = blocks_of({"messages": said})
    assert before
    assert blocks_of({"messages": later})[: len(before)] == before
    nothing: tuple[dict[str, Any], ...] = (
        {},
        {"prompt": ""},
        {"messages": []},
        {"prompt": "short"},
    )
    assert [blocks_of(request) for request in nothing] == [[]] * 4
    assert blocks_of({"prompt": [1, 2, 3] * 500})
    base, adapter = (blocks_of({"model": name, "prompt": "x" * 900}) for name in ("s", "law"))
    assert not set(base) & set(adapter)


def test_a_conversation_stays_at_its_replica_and_others_are_spread() -> None:
    affinity, idle = PrefixAffinity(), {"x": 0, "y": 0, "z": 0}
    homes: dict[int, str] = {}
    for turn in range(1, 6):
        for talk in range(9):
            blocks = blocks_of(prompt([chr(65 + talk)] * 4 * turn))
            loads = {**idle, **Counter(list(homes.values())[-2:])}
            home = affinity.choose(blocks, loads)
            assert homes.setdefault(talk, home) == home, "the wait is shorter than the prompt"
    assert set(homes.values()) == set(idle)


def test_a_busy_replica_is_passed_over_for_a_short_prompt() -> None:
    affinity = PrefixAffinity(mean_blocks=10.0)
    known = blocks_of(prompt(["a"] * 4))
    assert affinity.choose(known, {"x": 0, "y": 1}) == "x"
    assert affinity.choose(known, {"x": 0, "y": 0}) == "x"
    assert affinity.choose(known, {"x": 9, "y": 0}) == "y"
    affinity.keep_only(["y"])
    assert affinity.choose(known, {"x": 0, "y": 0}) == "y"


@given(
    prompts=st.lists(st.lists(st.sampled_from("abc"), max_size=5), max_size=40),
    most=st.integers(1, 12),
)
def test_what_is_remembered_is_bounded_and_a_beginning_outlives_what_goes_on_from_it(
    prompts: list[list[str]], most: int
) -> None:
    affinity = PrefixAffinity()
    old, prefix_affinity.REMEMBERED = prefix_affinity.REMEMBERED, most
    try:
        for words in prompts:
            blocks = blocks_of(prompt(words))
            affinity.choose(blocks, {"x": 0})
            kept = affinity._known["x"]
            assert len(kept) <= most
            held = [block in kept for block in blocks]
            assert held == sorted(held, reverse=True), "no gap in a beginning"
            assert affinity._matched("x", blocks) == sum(held)
    finally:
        prefix_affinity.REMEMBERED = old
