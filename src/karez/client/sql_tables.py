"""Rows of a query to a database, as a file of JSON lines."""

import importlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import IO, Any
from uuid import UUID

from karez.core.errors import BadRequest, BadRow, MissingPart

DATABASES = ("sqlite", "postgresql", "postgres", "mysql", "mariadb", "oracle", "mssql", "duckdb")
"""Schemes that are taken for a database; SQLAlchemy speaks to each through a driver."""
_DRIVERS: Mapping[str, str] = {
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
}
"""Scheme -> the one with a driver, where SQLAlchemy's own choice is another."""
_AT_ONCE = 1000
_TEXTS = (datetime, date, time, Decimal, UUID)


def is_database(scheme: str) -> bool:
    """Whether the scheme of a URL is one of a database."""
    return scheme.lower().partition("+")[0] in DATABASES


def rows_of_query(url: str, query: str, folder: Path) -> tuple[Path, str]:
    """Write what a query gives to a file of JSON lines. Nothing is changed in the database.

    Args:
        url: As SQLAlchemy writes it, such as sqlite:///desk.db or postgresql://user@host/base.
        query: A SELECT.
        folder: Where the file is written.

    Returns:
        The file, and the URL without its password.

    Raises:
        BadRequest: The database does not answer, or refuses the query.
        BadRow: A row holds what is no text, number or truth value.
        MissingPart: SQLAlchemy or the database's driver is not installed.
    """
    if not query.strip():
        problem, fix = "a database gives no rows without a query", 'Add --query "SELECT ...".'
        raise BadRequest(problem=problem, fix=fix)
    try:
        sqlalchemy: Any = importlib.import_module("sqlalchemy")
    except ModuleNotFoundError as error:
        install = "pip install 'karez[server]'"
        raise MissingPart(part="sqlalchemy", needed_for="--query", install=install) from error
    engine, shown = _opened(sqlalchemy, url)
    target = folder / "rows.jsonl"
    try:
        with engine.connect() as connection, target.open("w", encoding="utf-8") as file:
            _write(sqlalchemy, connection, query, file)
    except sqlalchemy.exc.SQLAlchemyError as error:
        problem = f"{shown} refuses: {_first_line(getattr(error, 'orig', None) or error)}"
        fix = "Look at the address, the query and its names."
        raise BadRequest(problem=problem, fix=fix) from error
    finally:
        engine.dispose()
    return target, shown


def _opened(sqlalchemy: Any, url: str) -> tuple[Any, str]:
    """(an engine, the URL without its password). Raises BadRequest, MissingPart."""
    errors = (sqlalchemy.exc.ArgumentError, sqlalchemy.exc.NoSuchModuleError, ValueError)
    try:
        asked = sqlalchemy.make_url(url)
        return sqlalchemy.create_engine(_address(sqlalchemy, asked)), str(asked)
    except errors as error:
        problem = f"this is no URL of a database: {_first_line(error)}"
        raise BadRequest(problem=problem, fix="Write such as sqlite:///desk.db.") from error
    except ModuleNotFoundError as error:
        driver, scheme = str(error.name), url.partition(":")[0]
        install = f"pip install {driver}"
        raise MissingPart(part=driver, needed_for=scheme, install=install) from error


def _write(sqlalchemy: Any, connection: Any, query: str, file: IO[str]) -> None:
    if connection.dialect.name == "postgresql":
        connection = connection.execution_options(postgresql_readonly=True)
    options = {"stream_results": True, "yield_per": _AT_ONCE}
    found = connection.execution_options(**options).execute(sqlalchemy.text(query))
    if not found.returns_rows:
        raise BadRequest(problem="the query gives no rows", fix="Write a SELECT.")
    names = _names(list(found.keys()))
    for number, row in enumerate(found, 1):
        file.write(_line(names, row, number))
    connection.rollback()


def _address(sqlalchemy: Any, address: Any) -> Any:
    """The URL with the driver that is installed; a file of SQLite is opened for reading alone."""
    address = address.set(drivername=_DRIVERS.get(address.drivername, address.drivername))
    if address.get_backend_name() == "sqlite" and address.database:
        path = Path(address.database)
        if not path.is_file():
            raise ValueError(f"there is no file {path}")
        return sqlalchemy.URL.create(
            "sqlite", database=f"file:{path.absolute()}", query={"mode": "ro", "uri": "true"}
        )
    return address


def _names(names: Sequence[str]) -> Sequence[str]:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        fix = "Name each column of the query once: SELECT ... AS ..."
        raise BadRequest(problem=f"the query has two columns {twice[0]!r}", fix=fix)
    return names


def _line(names: Sequence[str], row: Sequence[Any], number: int) -> str:
    told = {}
    for name, value in zip(names, row, strict=True):
        if isinstance(value, _TEXTS):
            value = str(value)
        if not isinstance(value, str | int | float | bool | list | dict | None):
            raise BadRow(
                place=f"row {number}, {name}",
                problem=f"it is of the type {type(value).__name__}",
                fix="Convert it in the query: CAST(... AS TEXT).",
            )
        told[name] = value
    return json.dumps(told, ensure_ascii=False) + "\n"


def _first_line(error: object) -> str:
    line = next(iter(str(error).strip().splitlines()), "")
    return (line or type(error).__name__)[:300]
