"""A store with one node of four cores."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from karez.store.sql import SqlStore
from tests.fakes import cpu_node


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    made = SqlStore(f"sqlite:///{tmp_path / 'k.db'}")
    made.pool.record_nodes([cpu_node("a", 4)], now=1.0)
    yield made
    made.close()
