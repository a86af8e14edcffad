"""One contract for every blob store: a folder, and S3 over a real wire."""

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from karez.core.artifacts import ArtifactKind
from karez.core.errors import BadRequest, BrokenArtifact, MissingPart, NotFound
from karez.core.workloads import State
from karez.drivers.blobs import FsspecBlobs
from tests.contracts.cloud import batch, make_cloud
from tests.object_store import s3_server

pytestmark = pytest.mark.story


@pytest.fixture(params=["folder", "s3"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FsspecBlobs]:
    if request.param == "folder":
        yield FsspecBlobs(str(tmp_path / "blobs"))
    else:
        with s3_server() as url:
            yield FsspecBlobs(url)


def test_what_is_put_is_what_is_opened(blobs: FsspecBlobs) -> None:
    large = b"0123456789abcdef" * (700 << 10)  # more than one part of an upload
    for body in (b"", b"x", large):
        entry = blobs.put(io.BytesIO(body))
        assert entry.size_bytes == len(body)
        assert blobs.has(entry.sha256)
        with blobs.open(entry.sha256) as file:
            assert file.read() == body
        blobs.put(io.BytesIO(body), expect=entry.sha256)  # again
    assert len(list(blobs.digests())) == 3


def test_what_is_not_there_or_not_what_it_says_leaves_nothing(blobs: FsspecBlobs) -> None:
    with pytest.raises(NotFound):
        blobs.open("0" * 64)
    with pytest.raises(BrokenArtifact):
        blobs.put(io.BytesIO(b"x"), expect="0" * 64)
    assert list(blobs.digests()) == []
    entry = blobs.put(io.BytesIO(b"x"))
    blobs.set_aside(entry.sha256)
    assert not blobs.has(entry.sha256)
    assert list(blobs.digests()) == []


@pytest.mark.deep
def test_a_cloud_keeps_its_blobs_in_s3(tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "a.txt").write_text("from the bucket\n")
    with s3_server() as url:
        cloud = make_cloud(tmp_path / "cloud", KAREZ_BLOBS=url)
        cloud.karez("up")
        try:
            with cloud.client() as client:
                sent = client.upload(code, name="code", kind=ArtifactKind.CODE)
                script = "mkdir $KAREZ_OUT/o; cp a.txt $KAREZ_OUT/o/b.txt"
                job = client.submit(batch("copies", "sh", "-c", script, code=sent.id))
                done = client.wait(job.id)
                assert done.state == State.SUCCEEDED
                client.download(done.status.outputs["o"], tmp_path / "got")
            assert (tmp_path / "got" / "b.txt").read_text() == "from the bucket\n"
            assert len(list(FsspecBlobs(url).digests())) == 1  # the same bytes once
            assert not (cloud.home / "blobs").exists()
            checked = cloud.karez("doctor", "--deep", "--home", str(cloud.home), check=False)
            assert "1 checked" in checked.stdout
        finally:
            cloud.karez("down")


def test_a_store_that_cannot_be_opened_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.setitem(sys.modules, "obstore.fsspec", None)
    with pytest.raises(MissingPart, match="obstore") as error:
        FsspecBlobs("s3://bucket/x")
    assert "karez[s3]" in error.value.hint()
    with pytest.raises(BadRequest, match="nonsense://x"):
        FsspecBlobs("nonsense://x")
