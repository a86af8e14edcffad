"""Rows of the matrix of architectures: kept, counted, shown; and the matrix that karez has."""

import json
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from karez.core.errors import BadRequest
from karez.studio.architectures.page import as_html
from karez.studio.architectures.rows import (
    COLUMNS,
    NONE,
    OK,
    Check,
    Matrix,
    Row,
    as_tree,
    counts,
    dump,
    load,
    nearest_green,
    rows_of_lines,
)


def row(name: str, family: str = "causal-lm", **failed: str) -> Row:
    outcomes: dict[Check, str] = {check: failed.get(check.name.lower(), OK) for check in COLUMNS}
    return Row(model_type=name, family=family, architecture="C", parameters=9, outcomes=outcomes)


OUTCOMES = st.dictionaries(
    st.sampled_from(Check), st.sampled_from([OK, NONE]) | st.text(min_size=1)
)
ROWS = st.builds(
    Row,
    model_type=st.text(),
    family=st.sampled_from(["causal-lm", "base"]),
    architecture=st.text(),
    parameters=st.integers(min_value=0),
    outcomes=OUTCOMES,
)


def matrix(*rows: Row) -> Matrix:
    return Matrix(date="2026-01-31", versions={"torch": "2"}, known=700, rows=rows)


@given(st.lists(ROWS, max_size=4))
def test_a_matrix_is_read_as_it_was_written(rows: list[Row]) -> None:
    whole = matrix(*rows)
    assert load(dump(whole), "x") == whole


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"rows": [1]}', dump(matrix(row("a")))[:-9]])
def test_a_file_without_a_matrix_is_refused_by_name(text: str) -> None:
    with pytest.raises(BadRequest, match=r"m\.json holds no matrix"):
        load(text, "m.json")


def test_half_a_line_is_a_row_that_was_not_tried() -> None:
    lines = [json.dumps(as_tree(row("a"))), "", json.dumps(as_tree(row("b")))[:-20], "[1]", "{}"]
    assert [one.model_type for one in rows_of_lines(lines)] == ["a"]


def test_a_row_is_green_if_it_trains_on_both() -> None:
    assert row("a", lora="no").is_green
    assert not row("a", npu_train="no").is_green
    assert not Row(model_type="a", family="base", architecture="C").is_green
    assert row("a", lora="no", generate=NONE).failures == {Check.LORA: "no"}
    assert counts([row("a"), row("b", lora="no")])[Check.LORA] == 1


def test_the_nearest_that_works_is_of_the_same_family_first() -> None:
    rows = [row("llama4", train="no"), row("llama4_vl", "base"), row("llama"), row("bert")]
    assert nearest_green(rows[0], rows) == "llama"
    assert nearest_green(rows[0], rows[:2]) == "llama4_vl"
    assert nearest_green(rows[0], rows[:1]) == nearest_green(row("x", "ctc"), rows) == ""


class Cells(HTMLParser):
    """Counts what a page has, and fails on tags that do not match."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in ("meta", "input", "br"):
            self.open.append(tag)
        self.cells += tag == "td"

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_has_a_cell_for_each_check_and_escapes_reasons() -> None:
    text = as_html(matrix(row("a"), row("<b>", train="<script>alert(1)</script>")))
    assert "<script>alert" not in text
    cells = Cells()
    cells.feed(text)
    assert cells.open == []
    families, types = 2 * (2 + len(COLUMNS)), 2 * (2 + len(COLUMNS))
    assert cells.cells == families + types + 2 * len(COLUMNS)  # and the legend
    assert "nearest that works: a" in text
