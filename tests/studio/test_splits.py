"""No near-duplicate is on both sides, whatever the rows, and every label is trained on."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from karez.core.table_formats import Part
from karez.studio.data.near_duplicates import group_near_duplicates, plain_text, shingles
from karez.studio.data.splits import split, without_leaks
from karez.studio.text_scores import f1

ROWS = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 9)), min_size=1, max_size=120, unique=True
)


@given(rows=ROWS, held_out=st.floats(0, 0.5), validation=st.floats(0, 0.4), seed=st.integers(0, 9))
def test_groups_stay_together_and_each_label_trains_in_any_order(
    rows: list[tuple[int, int]], held_out: float, validation: float, seed: int
) -> None:
    def parts_of(rows: list[tuple[int, int]]) -> dict[tuple[int, int], Part]:
        groups, labels = [group for group, _ in rows], [f"label {group % 5}" for group, _ in rows]
        texts, shares = [str(row) for row in rows], {Part.HELD_OUT: held_out}
        shares[Part.VALIDATION] = validation
        return dict(zip(rows, split(groups, texts, labels, shares, seed), strict=True))

    parts = parts_of(rows)
    assert len({(group, part) for (group, _), part in parts.items()}) == len({g for g, _ in rows})
    trained = {group % 5 for (group, _), part in parts.items() if part == Part.TRAIN}
    assert trained == {group % 5 for group, _ in rows}
    assert parts_of(sorted(rows)) == parts


def test_shares_are_kept_within_each_label() -> None:
    labels = ["often"] * 800 + ["seldom"] * 200
    texts = [f"row {n}" for n in range(1000)]
    parts = split(range(1000), texts, labels, {Part.HELD_OUT: 0.1, Part.VALIDATION: 0.05}, 7)
    count = Counter(zip(labels, parts, strict=True))
    assert count["often", Part.HELD_OUT] == 80
    assert count["seldom", Part.HELD_OUT] == 20
    assert count["often", Part.VALIDATION] == 40
    assert count["seldom", Part.VALIDATION] == 10


def test_a_row_more_moves_few_others() -> None:
    texts = [f"row {n}" for n in range(1001)]
    before = split(range(1000), texts[:1000], ["x"] * 1000, {Part.HELD_OUT: 0.1}, 7)
    after = split(range(1001), texts, ["x"] * 1001, {Part.HELD_OUT: 0.1}, 7)
    assert sum(a != b for a, b in zip(before, after, strict=False)) <= 3


def test_where_files_say_what_is_for_what_the_part_that_is_judged_by_keeps_a_row() -> None:
    groups = [1, 1, 2, 2, 3]
    parts = [Part.TRAIN, Part.HELD_OUT, Part.TRAIN, Part.VALIDATION, Part.TRAIN]
    assert without_leaks(groups, parts) == [False, True, False, True, True]


@given(
    texts=st.lists(st.text("ab c", min_size=1, max_size=30), min_size=1, max_size=30),
    similarity=st.sampled_from((0.5, 0.7, 0.9, 1.0)),
)
def test_groups_are_of_what_is_alike(texts: list[str], similarity: float) -> None:
    groups = group_near_duplicates(texts, similarity)
    plain = [plain_text(text) for text in texts]
    for number, group in enumerate(groups):
        members = [n for n, own in enumerate(groups) if own == group]
        assert group == min(members)
        if len(members) > 1:  # each has a friend in its group
            assert any(
                plain[n] == plain[number]
                or (similarity < 1 and _jaccard(plain[n], plain[number]) >= similarity)
                for n in members
                if n != number
            )
    for one, text in enumerate(plain):
        assert groups[one] == groups[plain.index(text)]


def _jaccard(one: str, other: str) -> float:
    a, b = shingles(one), shingles(other)
    return len(a & b) / len(a | b)


@pytest.mark.parametrize(
    ("texts", "are_alike"),
    [
        (["How do I get my card?", "how do i get my card"], True),
        (["我的卡什么时候能到。请告诉我", "我的卡什么时候会到 请告诉我"], True),
        (["I lost my card", "My top-up failed"], False),
        (["退货", "换货"], False),
    ],
)
def test_what_people_take_for_the_same_is(texts: list[str], *, are_alike: bool) -> None:
    assert (len(set(group_near_duplicates(texts, 0.6))) == 1) == are_alike


@pytest.mark.parametrize(
    ("answer", "expected", "score"),
    [
        ("cards", "Cards.", 1.0),
        ("the red card", "the card", 0.8),
        ("nothing", "card", 0.0),
        ("", "card", 0.0),
        ("", "", 1.0),
        ("我要退货", "我要换货", 0.75),
    ],
)
def test_f1_of_words(answer: str, expected: str, score: float) -> None:
    assert f1(answer, expected) == pytest.approx(score)
