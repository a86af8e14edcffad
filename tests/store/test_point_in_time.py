"""A cloud on PostgreSQL goes back to a moment: its database by its WAL, the rest by a backup."""

import io
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from karez.core.artifacts import Artifact, ArtifactId, ArtifactKind, ArtifactSpec
from karez.core.settings import Settings
from karez.drivers.blobs import FsspecBlobs
from karez.server.backups.backup import back_up
from karez.server.backups.restore import restore
from karez.server.home import Home
from karez.server.wiring import backup_folder, backup_source, restore_target
from karez.store.sql import SqlStore
from tests import postgres

pytestmark = pytest.mark.deep


@pytest.fixture
def server() -> Iterator[postgres.Server]:
    if postgres.programs() is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="kz-pg-"))
    made = postgres.Server(folder, archives=True)
    made.create()
    made.start()
    yield made
    made.stop()
    shutil.rmtree(folder, ignore_errors=True)


def now(store: SqlStore) -> str:
    with store.db.write() as tx:
        moment = str(tx.execute(text("SELECT clock_timestamp()")).scalar())
        tx.execute(text("SELECT pg_switch_wal()"))
    return moment


def add(store: SqlStore, blobs: FsspecBlobs, name: str) -> None:
    entry = blobs.put(io.BytesIO(name.encode()))
    spec = ArtifactSpec(name=name, kind=ArtifactKind.DATASET, files=(entry,))
    store.artifacts.add(Artifact(id=ArtifactId(name), spec=spec, owner="me", created_at=1.0))


def go_back(server: postgres.Server, base: Path, moment: str) -> None:
    server.stop()
    shutil.rmtree(server.data)
    server.data = base
    (base / "recovery.signal").touch()
    server.start(
        f"restore_command=cp {server.archive}/%f %p",
        f"recovery_target_time={moment}",
        "recovery_target_action=promote",
    )


def test_database_and_blobs_are_those_of_that_moment(
    server: postgres.Server, tmp_path: Path
) -> None:
    home = Home.of(Settings(home=str(tmp_path / "old")))
    home.pepper.write_text("pepper")
    settings = Settings(home=str(home.path), database=server.url)
    store, blobs = SqlStore(server.url), FsspecBlobs(str(home.path / "blobs"))
    add(store, blobs, "kept")
    base = server.folder / "base"
    server.run(
        "pg_basebackup", "-h", "127.0.0.1", "-p", str(server.port), "-U", "karez", "-D", str(base)
    )
    add(store, blobs, "before")
    moment = now(store)
    add(store, blobs, "after")
    now(store)
    source = backup_source(settings, home, with_database=False, with_blobs=True)
    back_up(source, backup_folder(tmp_path / "backup"), 1.0, keep=0, say=lambda *_: None)
    store.close()
    go_back(server, base, moment)
    folder = backup_folder(tmp_path / "backup")
    target = restore_target(settings, tmp_path / "new")
    restored = restore(folder, folder.find(""), target, lambda *_: None)
    assert (restored.blobs, restored.missing_blobs) == (2, ())
    again, copies = SqlStore(server.url), FsspecBlobs(str(tmp_path / "new" / "blobs"))
    found = {one.spec.name: one for one in again.artifacts.list(projects=None)}
    assert found.keys() == {"kept", "before"}
    for name, one in found.items():
        assert copies.open(one.spec.files[0].sha256).read() == name.encode()
    again.close()
