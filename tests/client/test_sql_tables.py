"""Rows of databases as tables: SQLite here, PostgreSQL where one runs."""

import json
import sqlite3
from pathlib import Path

import pytest

from karez.client.remote_files import brought
from karez.core.artifacts import ArtifactKind
from karez.core.errors import BadRequest, BadRow, MissingPart
from tests.postgres import server


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "desk.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE asked (text TEXT, label TEXT, at DATE, n NUMERIC)")
        rows = [("wo ist es?\n— hier", "lost", "2026-01-02", 1.5), ("再见", None, None, 3)]
        connection.executemany("INSERT INTO asked VALUES (?, ?, ?, ?)", rows)
    return path


def rows_of(url: str, query: str) -> tuple[list[dict[str, object]], str]:
    with brought(url, ArtifactKind.DATASET, query) as found:
        lines = found.path.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines], found.source


def test_rows_of_a_query_are_a_table(base: Path) -> None:
    rows, source = rows_of(f"sqlite:///{base}", "SELECT text, label, n AS number FROM asked")
    assert rows == [
        {"text": "wo ist es?\n— hier", "label": "lost", "number": 1.5},
        {"text": "再见", "label": None, "number": 3},
    ]
    assert source.startswith("sqlite:///")


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("", "no rows without a query"),
        ("SELECT other FROM asked", "no such column: other"),
        ("SELECT text, text FROM asked", "two columns 'text'"),
        ("DELETE FROM asked", "readonly database"),
        ("SELEC text", "syntax error"),
    ],
)
def test_a_query_that_cannot_be_is_told_and_nothing_is_changed(
    query: str, problem: str, base: Path
) -> None:
    with pytest.raises(BadRequest, match=problem):
        rows_of(f"sqlite:///{base}", query)
    with sqlite3.connect(base) as connection:
        assert connection.execute("SELECT count(*) FROM asked").fetchone() == (2,)


def test_what_is_no_database_is_told(tmp_path: Path, base: Path) -> None:
    with pytest.raises(BadRequest, match="there is no file"):
        rows_of(f"sqlite:///{tmp_path / 'none.db'}", "SELECT 1")
    assert not (tmp_path / "none.db").exists()
    with pytest.raises(BadRequest, match="no database that could be asked"):
        rows_of(str(base), "SELECT 1")
    with pytest.raises(MissingPart, match="oracle"):
        rows_of("oracle://u:secret@host/x", "SELECT 1")
    with pytest.raises(BadRequest, match="refuses") as caught:
        rows_of("postgresql://u:secret@127.0.0.1:1/x", "SELECT 1")
    assert "secret" not in str(caught.value)


def test_bytes_are_refused_with_the_row(base: Path) -> None:
    with pytest.raises(BadRow, match=r"row 1, b: it is of the type bytes.*CAST"):
        rows_of(f"sqlite:///{base}", "SELECT x'00ff' AS b")


@pytest.mark.story
@pytest.mark.deep
def test_postgresql_gives_rows_and_is_not_written_to() -> None:
    with server() as found:
        url = found.replace("+psycopg", "")
        rows, source = rows_of(url, "SELECT 1.50 AS price, DATE '2026-01-02' AS day, TRUE AS ok")
        assert rows == [{"price": "1.50", "day": "2026-01-02", "ok": True}]
        assert source == url
        with pytest.raises(BadRequest, match=r"syntax error|read-only"):
            rows_of(url, "CREATE TABLE x (y INT)")
