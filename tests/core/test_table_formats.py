"""Names of tables say their format, and what their rows are for."""

import pytest

from karez.core.table_formats import Part, TableFormat, format_of_tables, part_of, table_format


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.csv", TableFormat.CSV),
        ("A.CSV.gz", TableFormat.CSV),
        ("a.tsv", TableFormat.TSV),
        ("a.ndjson", TableFormat.JSONL),
        ("a.b.jsonl.gz", TableFormat.JSONL),
        ("a.json", TableFormat.JSON),
        ("a.parquet", TableFormat.PARQUET),
        ("a.parquet.gz", None),  # Parquet packs itself
        ("a.xlsx", None),
        ("csv", None),
    ],
)
def test_a_name_says_the_format(name: str, expected: TableFormat | None) -> None:
    assert table_format(name) == expected


def test_several_formats_have_one_word() -> None:
    assert format_of_tables(["a.csv", "b.csv", "README.md"]) == "csv"
    assert format_of_tables(["a.csv", "b.jsonl"]) == "tables"
    assert format_of_tables(["README.md"]) == ""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train.csv", Part.TRAIN),
        ("train-00000-of-00002.parquet", Part.TRAIN),
        ("my_test_rows.jsonl", Part.HELD_OUT),
        ("held_out.jsonl", Part.HELD_OUT),
        ("dev.tsv", Part.VALIDATION),
        ("validation.csv", Part.VALIDATION),
        ("contest.csv", None),  # a word, not a part of one
        ("train_test.csv", None),  # both
        ("rows.csv", None),
    ],
)
def test_a_name_says_what_rows_are_for(name: str, expected: Part | None) -> None:
    assert part_of(name) == expected
