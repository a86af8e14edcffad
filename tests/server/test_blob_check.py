"""Damaged and lost blobs are found, named by their artifacts, and repaired from a backup."""

import hashlib
import io
from pathlib import Path

import pytest

from karez.client.sdk import Client
from karez.core.artifacts import Artifact, ArtifactId, ArtifactKind, ArtifactSpec, FileEntry
from karez.drivers.blobs import FsspecBlobs
from karez.server.backups.blob_check import check_blobs
from tests.api import Api


def put(blobs: FsspecBlobs, text: str) -> FileEntry:
    return blobs.put(io.BytesIO(text.encode()))


def damage(blobs: FsspecBlobs, digest: str) -> None:
    path = blobs.local(digest)
    assert path is not None
    path.write_bytes(b"other")


def artifact(*entries: FileEntry) -> Artifact:
    files = tuple(
        FileEntry(path=str(n), sha256=e.sha256, size_bytes=e.size_bytes)
        for n, e in enumerate(entries)
    )
    spec = ArtifactSpec(name="model", kind=ArtifactKind.MODEL, files=files)
    return Artifact(id=ArtifactId("art-1"), spec=spec)


@pytest.mark.parametrize("has_backup", [True, False])
def test_what_is_damaged_or_lost_is_repaired_where_a_backup_has_it(
    tmp_path: Path, has_backup: bool
) -> None:
    blobs, backup = FsspecBlobs(str(tmp_path / "b")), FsspecBlobs(str(tmp_path / "k"))
    good, bad = put(blobs, "good"), put(blobs, "bad")
    lost = put(backup, "lost")
    put(backup, "bad")
    damage(blobs, bad.sha256)
    told: list[tuple[str, int, int]] = []
    owner = artifact(good, bad, lost)
    seen = check_blobs(blobs, [owner], None, repair=False, say=lambda *a: told.append(a))
    assert seen.blobs == 2
    assert told[-1] == ("blobs", 2, 2)
    assert [(b.digest, b.is_lost, b.is_repaired) for b in seen.damaged] == [
        (bad.sha256, False, False),
        (lost.sha256, True, False),
    ]
    assert {b.artifacts for b in seen.damaged} == {("model (art-1)",)}
    assert blobs.has(bad.sha256)  # a look changes nothing
    source = backup if has_backup else None
    done = check_blobs(blobs, [owner], source, repair=True, say=lambda *_: None)
    assert [b.is_repaired for b in done.damaged] == [has_backup, has_backup]
    assert blobs.has(bad.sha256) == has_backup
    again = check_blobs(blobs, [owner], None, repair=False, say=lambda *_: None)
    assert [b.is_lost for b in again.damaged] == ([] if has_backup else [True, True])


def test_a_backup_that_is_damaged_too_repairs_nothing(tmp_path: Path) -> None:
    blobs, backup = FsspecBlobs(str(tmp_path / "b")), FsspecBlobs(str(tmp_path / "k"))
    bad = put(blobs, "bad")
    put(backup, "bad")
    damage(blobs, bad.sha256)
    damage(backup, bad.sha256)
    done = check_blobs(blobs, [], backup, repair=True, say=lambda *_: None)
    assert [b.is_repaired for b in done.damaged] == [False]
    assert not blobs.has(bad.sha256)


def test_a_blob_that_was_set_aside_is_uploaded_anew(api: Api, url: str, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.py").write_text("a")
    digest = hashlib.sha256(b"a").hexdigest()
    blobs = api.cloud.blobs
    assert isinstance(blobs, FsspecBlobs)
    with Client(url, api.admin) as client:
        client.upload(tmp_path / "code", name="c", kind=ArtifactKind.CODE)
        damage(blobs, digest)
        check_blobs(blobs, [], None, repair=True, say=lambda *_: None)
        assert not blobs.has(digest)
        client.upload(tmp_path / "code", name="c", kind=ArtifactKind.CODE)
    assert blobs.open(digest).read() == b"a"
