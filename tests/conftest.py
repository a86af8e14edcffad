"""The API as a fixture, Hypothesis without its deadline, tiers with budgets, a core per worker."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.api import Api
    from tests.fakes import DirectFabric

pytest_plugins = ["tests.budgets", "tests.recovery_invariants"]

# how long an example takes says nothing about the code
settings.register_profile("house", deadline=None)
settings.load_profile("house")

# threads of torch that wait for each other and get no core take many times as long
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def api(tmp_path: Path) -> Iterator["Api"]:
    """The API of control, in this process."""
    from tests.api import running_api  # the other tests need no server

    with running_api(tmp_path) as api:
        yield api


@pytest.fixture
def fabric(tmp_path: Path) -> Iterator["DirectFabric"]:
    """One node's agent, in this process."""
    from tests.fakes import DirectFabric  # the other tests need no node

    made = DirectFabric(tmp_path, ["a"])
    yield made
    made.close()


@pytest.fixture
def url(api: "Api") -> Iterator[str]:
    """The address of that API on loopback."""
    from tests.loopback import served

    with served(api.http.app) as address:
        yield address
