"""A dump of a database fills an empty one, of whichever kind; a failed migration leaves nothing."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from karez.core.devices import DeviceKind
from karez.core.errors import StartFailed
from karez.core.grants import Grant
from karez.core.identity import Key, Role
from karez.core.nodes import NodeId
from karez.core.usage import AuditRow
from karez.core.workloads import State, WorkloadId
from karez.store import migration
from karez.store.dump import SqlDump
from karez.store.schema import metadata
from karez.store.sql import SqlStore
from tests.fakes import cpu_node
from tests.store.samples import job

GRANTS = (Grant(node=NodeId("a"), kind=DeviceKind.CPU, devices=((0, 1000),)),)
KEY = Key(id="k", name="k", project="default", role=Role.MEMBER, digest="", created_at=1.0)
AUDIT = AuditRow(id=0, at=1.0, actor="me", action="test", subject="a", outcome="done")


def fill(store: SqlStore) -> None:
    store.pool.record_nodes([cpu_node("a")], now=1.0)
    for name in ("a", "b"):
        store.workloads.add_job(job(name))
    store.workloads.place(WorkloadId("a"), GRANTS, now=2.0)
    assert store.workloads.claim([State.PLACED], owner="me", now=2.0, lease_s=1e9)
    for name, sealed in (("user", None), ("job", b"\x00\xffkey")):
        store.access.add_key(replace(KEY, id=name), sealed=sealed)
    store.access.put_secret("default", "TOKEN", b"\x00\xffsealed")
    with store.usage.auditing(lambda: AUDIT):
        pass


def rows(store: SqlStore, table: str) -> list[tuple[object, ...]]:
    with store.db.read() as tx:
        return sorted(map(tuple, tx.execute(metadata.tables[table].select())), key=repr)


def test_every_row_comes_back_and_no_lease(store: SqlStore, tmp_path: Path) -> None:
    fill(store)
    source = SqlDump(store.db.engine.url.render_as_string(hide_password=False))
    dump = source.dump(tmp_path / "dump")
    source.close()
    url = f"sqlite:///{tmp_path / 'new.db'}"
    target = SqlDump(url)
    assert target.revision() == ""
    target.load(tmp_path / "dump", dump)
    assert target.revision() == dump.revision
    target.close()
    new = SqlStore(url)
    store.workloads.drop_leases("me")
    for table in metadata.tables:
        assert rows(new, table) == rows(store, table), table
    assert new.workloads.claim([State.PLACED], owner="other", now=3.0, lease_s=1.0)
    new.close()


@pytest.fixture
def empty_postgres(postgres_url: str) -> Iterator[str]:
    def clear() -> None:
        store = SqlStore(postgres_url)
        with store.db.schema_change() as tx:
            tx.execute(text("DROP SCHEMA public CASCADE"))
            tx.execute(text("CREATE SCHEMA public"))
        store.close()

    clear()
    yield postgres_url
    clear()


@pytest.mark.story
def test_a_dump_of_sqlite_fills_postgresql_whose_numbers_go_on(
    tmp_path: Path, empty_postgres: str
) -> None:
    url = f"sqlite:///{tmp_path / 'k.db'}"
    store = SqlStore(url)
    fill(store)
    store.close()
    source = SqlDump(url)
    dump = source.dump(tmp_path / "dump")
    source.close()
    target = SqlDump(empty_postgres)
    target.load(tmp_path / "dump", dump)
    target.close()
    new = SqlStore(empty_postgres)
    assert new.access.secrets("default")["TOKEN"] == b"\x00\xffsealed"
    with new.usage.auditing(lambda: AUDIT):
        pass
    assert len(rows(new, "audit")) == 2
    new.close()


def test_a_snapshot_is_of_one_moment(store: SqlStore, tmp_path: Path) -> None:
    store.workloads.add_job(job("before"))
    with store.db.snapshot() as tx:
        seen = "SELECT count(*) FROM workloads"
        assert tx.execute(text(seen)).scalar() == 1
        store.workloads.add_job(job("meanwhile"))
        assert tx.execute(text(seen)).scalar() == 1


def test_a_migration_that_fails_leaves_the_database_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'k.db'}"
    store = SqlStore(url)
    store.workloads.add_job(job("a"))
    with store.db.write() as tx:
        tx.execute(text("DROP TABLE scheduler_state"))
        tx.execute(text("UPDATE alembic_version SET version_num = '0003'"))
        tx.execute(text("UPDATE workloads SET state = 'yielding'"))

    def fail(_: object) -> None:
        raise RuntimeError("the power is cut")

    with monkeypatch.context() as broken:
        broken.setattr(migration, "_check_complete", fail)
        with pytest.raises(RuntimeError):
            SqlStore(url)
    with store.db.read() as tx:
        found = tx.execute(text("SELECT version_num, state FROM alembic_version, workloads")).one()
        assert tuple(found) == ("0003", "yielding")
    assert (tmp_path / "k.db.before-0013").exists()
    again = SqlStore(url)
    moved = again.workloads.job("a")
    assert moved is not None
    assert moved.state == State.PREEMPTING
    again.close()
    store.close()


def test_tables_of_a_newer_release_are_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'k.db'}"
    store = SqlStore(url)
    with store.db.write() as tx:
        tx.execute(text("UPDATE alembic_version SET version_num = '0099'"))
    store.close()
    with pytest.raises(StartFailed, match=r"revision 0099.*newer one.*karez restore"):
        SqlStore(url)


def test_a_migration_that_was_half_done_is_refused_and_nothing_is_changed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'k.db'}"
    store = SqlStore(url)
    with store.db.write() as tx:
        tx.execute(text("DROP TABLE scheduler_state"))
        tx.execute(text("ALTER TABLE checkpoints DROP COLUMN whole"))
    store.close()
    for _ in range(2):
        with pytest.raises(StartFailed, match=r"lacks checkpoints.whole, scheduler_state"):
            SqlStore(url)
