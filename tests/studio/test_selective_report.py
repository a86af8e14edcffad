"""What a report says where a model answers only what it is sure of."""

from karez.studio.selective_answers import Judged
from karez.studio.selective_report import selective


def judged(sure: int, wrong: int, doubted: int = 0) -> list[Judged]:
    """So many sure answers, some of them wrong, and doubted ones that are all wrong."""
    good = [Judged(confidence=0.9, is_right=True)] * (sure - wrong)
    bad = [Judged(confidence=0.9, is_right=False)] * wrong
    return [*bad, *good, *[Judged(confidence=0.1, is_right=False)] * doubted]


def test_coverage_and_accuracy_are_of_held_out_rows_alone() -> None:
    report = selective(judged(300, 0, 100), judged(400, 1, 100), 0.98)
    assert (report["confidence"], report["chosen_on"]) == (0.9, {"answered": 300, "right": 300})
    assert (report["answered"], report["right"], report["coverage"]) == (400, 399, 0.8)
    assert report["accuracy"] == 399 / 400
    assert report["accuracy_95"][0] < report["accuracy"] < report["accuracy_95"][1]
    assert 0.98 < report["least"] < report["accuracy"]
    assert report["is_shown"]
    assert report["words"].startswith("answers 80.0% of the rows, 99.8% of them right")
    assert report["curve"][-1] == [1.0, 399 / 500]


def test_a_figure_above_the_target_on_few_rows_is_not_shown() -> None:
    report = selective(judged(300, 0), judged(100, 1), 0.98)
    assert report["accuracy"] == 0.99
    assert not report["is_shown"]
    assert report["words"].endswith("at least 98%: not shown by so few rows")


def test_without_a_threshold_nothing_is_answered_and_the_reason_is_told() -> None:
    report = selective(judged(10, 0), judged(100, 1), 0.98)
    assert "coverage" not in report
    assert report["words"] == (
        "no answers at 98%: 10 validation rows are too few: 98% needs 217 answers without a fault"
    )


def test_where_no_held_out_row_is_sure_enough_there_is_no_accuracy() -> None:
    report = selective(judged(300, 0), judged(0, 0, 50), 0.98)
    assert (report["answered"], report["accuracy"], report["is_shown"]) == (0, None, False)
