import pytest
from hypothesis import given
from hypothesis import strategies as st

from karez.core.errors import BadRequest
from karez.studio.calibration import calibration
from karez.studio.label_scores import label_scores
from karez.studio.selective_answers import Judged
from karez.studio.text_labels import label_of, labels_of, text_of


def row(text: str, label: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}, {"role": "assistant", "content": label}]


def test_the_text_is_all_that_was_said_before_the_label() -> None:
    talk = [{"role": "system", "content": "sort"}, *row("where is it?", " lost ")]
    assert text_of(talk) == "sort\nwhere is it?"
    assert label_of(talk) == "lost"
    assert labels_of([talk, row("a", "found"), talk, row("b", "found")]) == ("found", "lost")


def test_answers_that_are_no_labels_are_refused() -> None:
    with pytest.raises(BadRequest, match="3 training rows have the label 'a'"):
        labels_of([row(str(n), "a") for n in range(3)])
    with pytest.raises(BadRequest, match=r"4 training rows have 3 answers.*sft-lora"):
        labels_of([row(str(n), str(n // 2 * n)) for n in range(4)])


pairs = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abcd")), min_size=1)


@given(pairs)
def test_scores_of_labels_add_up(found: list[tuple[str, str]]) -> None:
    scores = label_scores([e for e, _ in found], [f for _, f in found])
    right = sum(e == f for e, f in found)
    assert sum(one["rows"] for one in scores["labels"]) == len(found)
    recalled = sum(one["recall"] * one["rows"] for one in scores["labels"])
    assert recalled == pytest.approx(right)
    assert sum(count for *_, count in scores["confused"]) == len(found) - right
    assert 0 <= scores["macro_f1"] <= 1


def test_scores_of_labels_are_the_usual_ones() -> None:
    """Precision 2/3, recall 2/2 and F1 0.8 of a; b is never named: 0."""
    scores = label_scores(["a", "a", "b"], ["a", "a", "a"])
    assert [(one["precision"], one["recall"]) for one in scores["labels"]] == [
        (2 / 3, 1),
        (None, 0),
    ]
    assert scores["labels"][0]["f1"] == pytest.approx(0.8)
    assert scores["macro_f1"] == pytest.approx(0.4)
    assert scores["confused"] == [["b", "a", 1]]


def test_a_model_is_calibrated_where_it_is_right_as_often_as_it_says() -> None:
    well = [Judged(confidence=0.75, is_right=n != 0) for n in range(4)]
    assert calibration(well)["error"] == pytest.approx(0)
    assert calibration(well)["bins"] == [[4, 0.75, 0.75]]
    proud = [Judged(confidence=1.0, is_right=n == 0) for n in range(4)]
    assert calibration(proud)["error"] == pytest.approx(0.75)
    assert calibration(proud)["brier"] == pytest.approx(0.75)
    assert calibration([])["error"] == 0


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1))
def test_the_error_of_calibration_is_a_share(told: list[tuple[float, bool]]) -> None:
    found = calibration([Judged(confidence=c, is_right=r) for c, r in told])
    assert 0 <= float(str(found["error"])) <= 1
    assert isinstance(found["bins"], list)
    assert sum(count for count, *_ in found["bins"]) == len(told)
