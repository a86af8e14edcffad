"""Models and tables are brought from a hub and from buckets; what is not there is told."""

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from karez.client.remote_files import brought, is_remote
from karez.client.sdk import Client
from karez.core.artifacts import ArtifactKind
from karez.core.errors import BadRequest
from tests.api import Api
from tests.client.test_model_folder import safetensors
from tests.hub import COMMIT, hub
from tests.object_store import s3_server

MODEL, DATA = ArtifactKind.MODEL, ArtifactKind.DATASET
CARD = b"---\nlanguage: en\nlicense: apache-2.0\n---\n# A model\nlicense: mit\n"
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": safetensors(),
    "pytorch_model.bin": b"pickled",
    "README.md": CARD,
    "onnx/model.onnx": b"another",
}
ROWS = b"question,answer\nhow?,so\n"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    repositories = {
        "models/org/tiny": FILES,
        "models/org/pickled": {name: FILES[name] for name in ("config.json", "pytorch_model.bin")},
        "datasets/org/rows": {"data/train.csv": ROWS, "README.md": b"no front matter"},
    }
    with hub(repositories) as found:
        yield found


def karez(home: Path, *words: str, **env: str) -> "subprocess.CompletedProcess[str]":
    """Run the command line in a process of its own: the hub's library reads its variables once."""
    return subprocess.run(
        [sys.executable, "-m", "karez.cli.main", *words],
        env={**os.environ, "HF_HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1", **env},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.deep
def test_a_model_comes_from_a_mirror_of_the_hub_with_licence_and_revision(
    api: Api, url: str, address: str, tmp_path: Path
) -> None:
    cloud = {"KAREZ_URL": url, "KAREZ_KEY": api.admin}
    done = karez(
        tmp_path, "models", "add", "hf://org/tiny@main", "--name", "t", HF_ENDPOINT=address, **cloud
    )
    assert done.returncode == 0, done.stderr
    with Client(url, api.admin) as client:
        spec = client.artifact("t").spec
    assert {file.path for file in spec.files} == {"config.json", "model.safetensors", "README.md"}
    assert spec.format == "hf"
    assert spec.lineage.licence == "apache-2.0"
    assert spec.lineage.source == f"{address}/org/tiny/tree/{COMMIT}"
    again = karez(  # what was had before is there without the hub
        tmp_path,
        *("models", "add", "hf://org/tiny", "--name", "t2", "--licence", "MIT"),
        **{"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "1", **cloud},
    )
    assert again.returncode == 0, again.stderr
    with Client(url, api.admin) as client:
        assert client.artifact("t2").spec.lineage.licence == "MIT"
    for name, said in (
        ("hf://org/none", "has no org/none that you may see"),
        ("hf://org/pickled", "no weights"),
        ("hf://tiny", "Write hf://OWNER/NAME"),
        ("hf://org/tiny@gone", "has no revision 'gone'"),
    ):
        refused = karez(
            tmp_path, "models", "add", name, "--name", "no", HF_ENDPOINT=address, **cloud
        )
        assert refused.returncode in (1, 2), refused
        assert said in refused.stderr
    with Client(url, api.admin) as client:
        assert {one.spec.name for one in client.artifacts()} == {"t", "t2"}


@pytest.mark.deep
def test_without_a_hub_the_ways_round_it_are_told(api: Api, url: str, tmp_path: Path) -> None:
    done = karez(
        tmp_path,
        *("data", "add", "hf://org/rows", "--name", "r"),
        KAREZ_URL=url,
        KAREZ_KEY=api.admin,
        HF_ENDPOINT="http://127.0.0.1:9",
    )
    assert done.returncode == 2
    assert "Set HF_ENDPOINT to a mirror" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.story
def test_files_come_from_a_bucket_and_nothing_stays_here(tmp_path: Path) -> None:
    import obstore
    from obstore.store import from_url

    with s3_server() as bucket:
        root = bucket.removesuffix("/blobs")
        store = from_url(root)
        for name, body in FILES.items():
            obstore.put(store, f"models/tiny/{name}", body)
        obstore.put(store, "models/tiny-other/config.json", b"{}")
        obstore.put(store, "rows/a.csv", ROWS)
        for folder in ("models/tiny/", "models/tiny/onnx/", "models/tiny/empty/"):
            _put_marker(folder, root)
        with brought(f"{root}/models/tiny/", MODEL) as found:
            kept = found.path
            here = {str(one.relative_to(kept)) for one in kept.rglob("*") if one.is_file()}
            assert here == set(FILES)
            assert (kept.name, found.source) == ("tiny", f"{root}/models/tiny/")
        assert not kept.exists()
        with brought(f"{root}/rows/a.csv", DATA) as found:
            assert (found.path.name, found.path.read_bytes()) == ("a.csv", ROWS)
        with pytest.raises(BadRequest, match="There is nothing at"), brought(f"{root}/x", DATA):
            pass
        with (
            pytest.raises(BadRequest, match=r"nothing at|cannot be read"),
            brought("s3://no-such-bucket-here/x", DATA),
        ):
            pass


def _put_marker(name: str, root: str) -> None:
    """A folder as the AWS console makes it: an empty object whose name ends in a slash."""
    address = f"{os.environ['AWS_ENDPOINT_URL']}/{root.removeprefix('s3://')}/{name}"
    urllib.request.urlopen(urllib.request.Request(address, data=b"", method="PUT")).close()


def test_paths_stay_paths_and_other_schemes_are_refused(tmp_path: Path) -> None:
    assert not is_remote("./hf")
    assert not is_remote(tmp_path)
    with brought(str(tmp_path), MODEL) as found:
        assert (found.path, found.source, found.licence) == (tmp_path, "", "")
    with pytest.raises(BadRequest, match="ftp://"), brought("ftp://host/x", MODEL):
        pass
    with pytest.raises(BadRequest, match="names no repository"), brought("hf://../..", MODEL):
        pass
