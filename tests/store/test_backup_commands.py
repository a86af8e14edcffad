"""`karez backup` and `karez restore` of a cloud on PostgreSQL, as an operator gives them."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from karez.core.settings import Settings
from karez.server.home import Home
from karez.store.sql import SqlStore
from tests.store.samples import job

pytestmark = pytest.mark.story


@pytest.fixture
def databases(postgres_url: str) -> Iterator[tuple[str, str]]:
    """Two empty databases of one server."""
    names = ("old_cloud", "new_cloud")
    engine = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for name in names:
            connection.execute(text(f"CREATE DATABASE {name}"))
    yield tuple(f"{postgres_url.rpartition('/')[0]}/{name}" for name in names)  # type: ignore[misc]
    with engine.connect() as connection:
        for name in names:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


def karez(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "karez.cli.main", *words],
        env={name: value for name, value in os.environ.items() if name != "KAREZ_DATABASE"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_cloud_on_postgresql_is_backed_up_and_restored(
    tmp_path: Path, databases: tuple[str, str]
) -> None:
    old, new = databases
    Home.of(Settings(home=str(tmp_path / "old"))).pepper.write_text("pepper")
    store = SqlStore(old)
    store.workloads.add_job(job("a"))
    where, backup = ("--home", str(tmp_path / "old")), str(tmp_path / "backup")
    forgotten = karez("backup", backup, *where)
    assert forgotten.returncode == 2
    assert "holds no cloud" in forgotten.stderr
    assert "--database" in forgotten.stderr
    made = karez("backup", backup, *where, "--database", old)
    assert made.returncode == 0, made.stderr
    taken = karez("restore", backup, "--home", str(tmp_path / "new"), "--database", old)
    assert taken.returncode == 2
    assert "has tables already" in taken.stderr
    done = karez("restore", backup, "--home", str(tmp_path / "new"), "--database", new)
    assert done.returncode == 0, done.stderr
    assert f"karez up --home {tmp_path / 'new'} --database {new}" in done.stdout
    again = SqlStore(new)
    assert again.workloads.job("a") == store.workloads.job("a")
    again.close()
    store.close()
