"""Fixtures of the simulated days."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests.sim.fake_cloud import FakeCloud


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Faults by the hundred: their log is of no use."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    yield
    structlog.reset_defaults()


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[FakeCloud]:
    """Two nodes of two cores."""
    made = FakeCloud(tmp_path, nodes=("a", "b"), cores=2)
    yield made
    made.close()
