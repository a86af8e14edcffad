"""No question is cut off, and what is lost of rows is counted, told, or refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from karez.core.errors import BadRequest
from karez.studio.recipes.row_lengths import Encoded, fit_rows


def row(question: int, answer: int) -> Encoded:
    return [*range(question + answer)], question


rows_of = st.lists(st.builds(row, st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=30)


@given(rows_of, st.integers(0, 130), st.none() | st.integers(2, 100))
def test_questions_stay_whole_and_every_row_is_accounted_for(
    rows: list[Encoded], max_tokens: int, context: int | None
) -> None:
    try:
        fitted = fit_rows(rows, max_tokens=max_tokens, context=context, max_cut=1.0)
    except BadRequest:
        limit = min(filter(None, (max_tokens, context)))
        assert all(prompt + 1 > limit for _, prompt in rows)
        return
    assert len(fitted.rows) + fitted.left_out == len(rows)
    assert context is None or fitted.limit <= context
    cut = 0
    for (tokens, prompt), number in zip(fitted.rows, fitted.kept, strict=True):
        whole, question = rows[number]
        assert prompt == question < len(tokens) <= fitted.limit
        assert tokens == whole[: len(tokens)]
        cut += len(tokens) < len(whole)
    assert cut == fitted.cut
    assert bool(fitted.notice()) == bool(cut + fitted.left_out)


def test_the_length_is_that_of_the_data_as_far_as_the_model_reads() -> None:
    rows = [row(20, 10)] * 150 + [row(40, 10)]
    assert fit_rows(rows, max_tokens=0, context=None, max_cut=0.0).limit == 50
    outlier = [*rows, row(300, 400)]
    fitted = fit_rows(outlier, max_tokens=0, context=None, max_cut=0.02)
    assert (fitted.limit, fitted.cut, fitted.left_out) == (50, 0, 1)


def test_more_loss_than_allowed_is_refused_with_the_lengths() -> None:
    rows = [row(80, 20)] * 9 + [row(10, 10)]
    with pytest.raises(BadRequest, match="9 of 10 rows are longer than the 96 tokens") as error:
        fit_rows(rows, max_tokens=96, context=None, max_cut=0.01)
    assert "half have up to 100, 99% up to 100, the longest 100" in error.value.what()
    assert "max_tokens" in error.value.hint()
    assert "max_cut" in error.value.hint()
    with pytest.raises(BadRequest) as error:
        fit_rows(rows, max_tokens=0, context=64, max_cut=0.5)
    assert "the model reads 64 tokens" in error.value.hint()


def test_what_was_lost_is_told() -> None:
    rows = [row(10, 10)] * 98 + [row(10, 30), row(30, 10)]
    fitted = fit_rows(rows, max_tokens=20, context=None, max_cut=0.02)
    assert fitted.facts() == {"max_tokens": 20, "rows_cut": 1, "rows_left_out": 1}
    assert fitted.notice().startswith("of 100 rows 1 lost the end of their answer and 1 were left")
