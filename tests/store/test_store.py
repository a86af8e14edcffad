"""The store as a whole: migrations and older databases; artifacts and access."""

from pathlib import Path

import pytest
from sqlalchemy import text

from karez.core.artifacts import Artifact, ArtifactKind, ArtifactSpec, FileEntry, artifact_id
from karez.core.devices import DeviceKind
from karez.core.errors import AlreadyExists, StartFailed
from karez.core.identity import Key, Project, Role
from karez.store.sql import SqlStore
from tests.store.samples import job


def test_migrating_twice_is_harmless(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'k.db'}"
    first = SqlStore(url)
    first.workloads.add_job(job("a"))
    second = SqlStore(url)
    assert second.workloads.job("a") is not None
    first.close()
    second.close()


def test_a_database_that_does_not_answer_is_a_typed_error() -> None:
    with pytest.raises(StartFailed, match="database"):
        SqlStore("postgresql+psycopg://nobody@127.0.0.1:1/none")


def test_limits_of_an_older_cloud_are_read_under_their_new_names(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'old.db'}"
    store = SqlStore(url)
    with store.db.write() as tx:
        body = '{"name": "lab", "quota_milli": {"npu": 4000}, "cohort": "c", "lend_milli": {}}'
        tx.execute(text(f"INSERT INTO projects (name, body) VALUES ('lab', '{body}')"))
        tx.execute(text("UPDATE alembic_version SET version_num = '0001'"))
        for table in ("windows", "targets", "marks"):
            tx.execute(text(f"DROP TABLE {table}"))
    store.close()
    again = SqlStore(url)
    (lab,) = (one for one in again.access.projects() if one.name == "lab")
    assert lab.quota == {DeviceKind.NPU: 4000}
    assert again.pool.nodes() == []
    again.close()


def test_an_artifact_is_registered_once_and_found_by_name(store: SqlStore) -> None:
    files = (FileEntry(path="f", sha256="a" * 64, size_bytes=3),)
    spec = ArtifactSpec(name="m", kind=ArtifactKind.MODEL, files=files, facts={"n": 1, "x": None})
    artifact = Artifact(id=artifact_id(spec), spec=spec, owner="me", created_at=1.0)
    assert store.artifacts.add(artifact) == store.artifacts.add(artifact) == artifact
    assert store.artifacts.find("m") == artifact
    assert store.artifacts.list(projects=["default"], kinds=[ArtifactKind.DATASET]) == []
    assert store.artifacts.remove(artifact.id)


def test_projects_keys_and_secrets_are_stored_and_changed(store: SqlStore) -> None:
    store.access.add_project(Project(name="p"))
    with pytest.raises(AlreadyExists):
        store.access.add_project(Project(name="p"))
    limited = Project(name="p", quota={DeviceKind.NPU: 8000})
    assert store.access.set_quota(limited)
    assert store.access.projects() == [limited]
    key = Key(id="k", name="n", project="p", role=Role.MEMBER, digest="d", created_at=1.0)
    store.access.add_key(key)
    assert store.access.key("k") == key
    assert store.access.expire_key("k", at=9.0)
    assert store.access.expire_key("k", at=12.0)
    kept = store.access.key("k")
    assert kept is not None
    assert kept.expires_at == 9.0
    assert store.access.revoke_key("k", at=2.0)
    assert not store.access.expire_key("k", at=3.0)
    assert not store.access.expire_key("nobody", at=3.0)
    assert not store.access.revoke_key("k", at=3.0)
    store.access.put_secret("p", "s", b"1")
    store.access.put_secret("p", "s", b"2")
    assert store.access.secrets("p") == {"s": b"2"}
    assert store.access.drop_secret("p", "s")
