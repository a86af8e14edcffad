"""Texts and their labels, of chat rows whose answer is a label. Pure."""

from collections import Counter
from collections.abc import Sequence

from karez.core.chat_rows import Row
from karez.core.errors import BadRequest
from karez.core.names import printable

ROWS_OF_A_LABEL = 2
"""Rows that a label has on average, at least: with fewer the answers are no labels."""
SHOWN = 60
"""Characters of a label in an error."""


def text_of(row: Row) -> str:
    """What is to be labelled: all that is said before the answer, one message after another."""
    return "\n".join(message["content"] for message in row[:-1])


def label_of(row: Row) -> str:
    """The label of a row: its answer."""
    return row[-1]["content"].strip()


def labels_of(rows: Sequence[Row]) -> tuple[str, ...]:
    """The labels of training rows, in the order of their names.

    Raises:
        BadRequest: There is one label only, or the answers are no labels.
    """
    counts = Counter(map(label_of, rows))
    if len(counts) == 1:
        (only,) = counts
        raise BadRequest(
            problem=f"all {len(rows):,} training rows have the label {printable(only)[:SHOWN]!r}",
            fix="A classifier needs rows of two labels at least.",
        )
    if len(counts) * ROWS_OF_A_LABEL > len(rows):
        raise BadRequest(
            problem=f"{len(rows):,} training rows have {len(counts):,} answers: no labels",
            fix="Name the column of labels (`karez data prepare --answer COLUMN`), or train a "
            "model that writes its answers, by the recipe sft-lora.",
        )
    return tuple(sorted(counts))
