"""The store on SQLite and on a real PostgreSQL: every test of this room runs on both."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from karez.store.schema import metadata
from karez.store.sql import SqlStore
from tests import postgres


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    if postgres.programs() is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with postgres.server() as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.story)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlStore]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'k.db'}"
    else:
        url = request.getfixturevalue("postgres_url")
    made = SqlStore(url)
    yield made
    with made.db.write() as tx:
        for table in reversed(metadata.sorted_tables):
            tx.execute(text(f"DELETE FROM {table.name}"))
    made.close()
