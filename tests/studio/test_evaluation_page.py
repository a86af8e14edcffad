from html.parser import HTMLParser
from typing import Any

from typing_extensions import override

from karez.studio.calibration import calibration
from karez.studio.evaluation_page import evaluation_page
from karez.studio.label_scores import label_scores
from karez.studio.selective_answers import Judged
from karez.studio.selective_report import selective


class Checked(HTMLParser):
    """Reads a page, and refuses one whose elements do not close."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.said = ""

    @override
    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.append(tag)
        if tag not in ("meta", "br", "input", "rect", "polyline"):
            self.open.append(tag)

    @override
    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.seen.append(tag)

    @override
    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    @override
    def handle_data(self, data: str) -> None:
        self.said += data


def read(report: dict[str, Any]) -> Checked:
    found = Checked()
    found.feed(evaluation_page(report))
    assert not found.open
    return found


def measured(right: int, of: int = 300) -> dict[str, Any]:
    judged = [Judged(confidence=1 - n / 400, is_right=n < right) for n in range(of)]
    expected = ["<way>" if n % 2 else "back" for n in range(of)]
    named = [label if n < right else "other" for n, label in enumerate(expected)]
    return {
        "loss": 0.5,
        "accuracy": right / of,
        "accuracy_95": [0.1, 0.9],
        "f1": 0.5,
        **label_scores(expected, named),
        "calibration": calibration(judged),
        "selective": selective(judged, judged, 0.9),
        "answers": [
            {"expected": e, "answered": n, "confidence": 0.5}
            for e, n in zip(expected, named, strict=True)
        ],
    }


PLAIN: dict[str, Any] = {"rows": 300, "measure": "the right label", "device": "cpu"}


def test_a_page_has_figures_curves_labels_and_what_was_wrong() -> None:
    report: dict[str, Any] = {**PLAIN, "base": measured(200), "model": measured(280)}
    report["base"]["measured_as"] = "logistic regression on its vectors (C = 1)"
    found = read(report)
    assert found.seen.count("svg") == 2
    assert found.seen.count("polyline") == 2 + 2 + 1
    for text in ("93.3%", "logistic regression", "With a target", "<way>", "20 were wrong"):
        assert text.lower() in found.said.lower()
    assert "<way>" not in evaluation_page(report)  # it is escaped


def test_a_page_of_little_has_little() -> None:
    told = {"loss": 1.0, "accuracy": 1.0, "accuracy_95": [0.9, 1.0], "f1": 1.0, "answers": []}
    found = read({**PLAIN, "model": told, "mistyped": {"share": 0.1, **told}})
    assert "svg" not in found.seen
    assert "model, 10% of words mistyped" in found.said
