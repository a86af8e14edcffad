"""What an upload sends of a folder, and what it says of the rest."""

import hashlib
import os
import socket
import stat
from pathlib import Path

import pytest

from karez.client import calls
from karez.client.sdk import AsyncClient, Client
from karez.client.upload import UploadPlan, UploadProgress, plan_upload, show_left_out
from karez.core.artifacts import ArtifactKind, ArtifactSpec, FileEntry, FileMode
from karez.core.errors import BadRequest
from tests.api import Api

CODE, DATA = ArtifactKind.CODE, ArtifactKind.DATASET


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def modes(plan: UploadPlan) -> dict[str, FileMode]:
    return {file.entry.path: file.entry.mode for file in plan.files}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A code folder as people have it."""
    root = write(
        tmp_path / "tree",
        {
            "main.py": "import sub",
            "run.sh": "#!/bin/sh\necho hi\n",
            "sub/a.txt": "x",
            ".env": "TOKEN=1",
            ".env.example": "TOKEN=",
            ".git/HEAD": "ref",
            "sub/__pycache__/a.pyc": "",
            "build/lib.o": "",
            "logs/1.log": "",
            "logs/keep.log": "",
            ".gitignore": "build/\n*.log\n!keep.log\n",
        },
    )
    (root / "run.sh").chmod(0o755)
    (root / "empty").mkdir()
    (root / "in_dir").symlink_to("sub")
    (root / "sub" / "up").symlink_to("../main.py")
    (root / "absolute").symlink_to(root / "sub" / "a.txt")
    (root / "dangling").symlink_to("nowhere")
    return root


def test_code_keeps_modes_links_and_empty_folders(tree: Path) -> None:
    assert modes(plan_upload(tree, CODE)) == {
        ".env.example": FileMode.FILE,
        ".gitignore": FileMode.FILE,
        "absolute": FileMode.LINK,
        "dangling": FileMode.LINK,
        "empty": FileMode.FOLDER,
        "in_dir": FileMode.LINK,
        "logs/keep.log": FileMode.FILE,
        "main.py": FileMode.FILE,
        "run.sh": FileMode.EXECUTABLE,
        "sub/a.txt": FileMode.FILE,
        "sub/up": FileMode.LINK,
    }


def test_what_is_left_out_is_told(tree: Path) -> None:
    left_out = plan_upload(tree, CODE).left_out
    assert left_out == {".env": 1, ".git": 1, "by .gitignore": 2, "__pycache__": 1}
    assert show_left_out(left_out) == "left out: .env, .git, by .gitignore (2), __pycache__"
    assert show_left_out({}) == ""


def test_karezignore_wins_over_gitignore_and_over_what_is_left_out_by_itself(tree: Path) -> None:
    write(tree, {".karezignore": "!.env\n!build/\nmain.py\n", "sub/.karezignore": "/a.txt\n"})
    paths = set(modes(plan_upload(tree, CODE)))
    assert {".env", "build/lib.o"} <= paths
    assert not {"main.py", "sub/a.txt", "logs/1.log"} & paths


@pytest.mark.parametrize("target", ["../outside", "../outside/data.txt", "/etc/hostname"])
def test_a_link_out_of_the_code_is_refused_by_name(tree: Path, target: str) -> None:
    write(tree.parent, {"outside/data.txt": "ok"})
    (tree / "ext").symlink_to(target)
    with pytest.raises(BadRequest, match="ext -> ") as error:
        plan_upload(tree, CODE)
    assert ".karezignore" in error.value.hint()
    write(tree, {".karezignore": "ext\n"})
    assert "ext" not in modes(plan_upload(tree, CODE))


def test_data_is_read_through_its_links_and_no_loop_hangs(tmp_path: Path) -> None:
    write(tmp_path, {"blobs/1": "weights", "blobs/sub/2": "more", "snap/readme": "x"})
    (tmp_path / "snap" / "model.bin").symlink_to("../blobs/1")
    (tmp_path / "snap" / "more").symlink_to("../blobs/sub")
    (tmp_path / "snap" / "loop").symlink_to(".")
    (tmp_path / "snap" / "gone").symlink_to("nowhere")
    plan = plan_upload(tmp_path / "snap", DATA)
    assert modes(plan) == dict.fromkeys(("model.bin", "more/2", "readme"), FileMode.FILE)
    assert plan.left_out == {"links to nothing": 1}


def test_what_is_no_file_is_left_out_and_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    os.mkfifo(write(tmp_path, {"a": "1"}) / "pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "sock"))
        assert plan_upload(tmp_path, CODE).left_out == {"pipes, sockets and devices": 2}
    with pytest.raises(BadRequest, match=r"(?i)there are no files"):
        plan_upload(tmp_path / "none", CODE)
    write(tmp_path / "all", {".karezignore": "*\n"})
    with pytest.raises(BadRequest, match=r"no files at .*left out: by \.karezignore"):
        plan_upload(tmp_path / "all", CODE)
    (tmp_path / "a\\b").touch()
    with pytest.raises(BadRequest, match="cannot be kept"):
        plan_upload(tmp_path, CODE)


def test_only_new_bytes_are_sent_and_what_is_downloaded_is_what_was_there(
    api: Api, url: str, tree: Path, tmp_path: Path
) -> None:
    told: list[UploadProgress] = []
    with Client(url, api.admin) as client:
        first = client.upload(tree, name="c", kind=CODE, watch=told.append)
        assert told[-1].sent_bytes == told[-1].bytes > 0
        write(tree, {"main.py": "import other"})
        told.clear()
        second = client.upload(tree, name="c", kind=CODE, watch=told.append)
        assert (told[-1].files, told[-1].sent_bytes) == (1, len("import other"))
        assert first.id != second.id
        client.download("c", tmp_path / "got")
        with pytest.raises(BadRequest, match="not an empty folder"):
            client.download("c", tmp_path / "got")
    got = tmp_path / "got"
    assert (got / "main.py").read_text() == "import other"
    assert (got / "in_dir" / "a.txt").read_text() == "x"
    assert (got / "absolute").readlink() == Path("sub/a.txt")
    assert stat.S_IMODE((got / "run.sh").stat().st_mode) & 0o100
    assert list((got / "empty").iterdir()) == []
    assert not list(got.rglob("*.partial"))


async def test_the_async_client_sends_and_fetches_the_same(
    api: Api, url: str, tree: Path, tmp_path: Path
) -> None:
    async with AsyncClient(url, api.admin) as client:
        await client.upload(tree, name="c", kind=CODE)
        await client.download("c", tmp_path / "got")
    assert (tmp_path / "got" / "in_dir" / "a.txt").read_text() == "x"


def test_a_link_out_of_an_artifact_cannot_be_registered(api: Api, url: str) -> None:
    target = b"../../etc/passwd"
    with Client(url, api.admin) as client:
        digest = hashlib.sha256(target).hexdigest()
        client.call(calls.put_blob(digest, target, "default"))
        link = FileEntry(path="a", sha256=digest, size_bytes=len(target), mode=FileMode.LINK)
        with pytest.raises(BadRequest, match="link out of"):
            client.register(ArtifactSpec(name="x", kind=CODE, files=(link,)))
