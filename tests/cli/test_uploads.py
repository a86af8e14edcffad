"""What `karez jobs submit --code` and `karez artifacts download` say and do."""

from pathlib import Path

import pytest

from tests.api import Api
from tests.cli.conftest import Karez
from tests.fakes import cpu_node


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A code folder as people have it."""
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    for name in ("main.py", "sub/a.txt", ".env", "1.log", "2.log"):
        (root / name).write_text(name)
    (root / ".gitignore").write_text("*.log\n")
    return root


def test_a_job_that_will_be_refused_is_refused_before_its_code_is_sent(
    karez: Karez, api: Api, tree: Path
) -> None:
    refused = karez("jobs", "submit", "--input", "model=nope", "--code", str(tree), "--", "true")
    assert refused.code == 1
    assert "nope" in refused.err
    assert not list(api.cloud.blobs.digests())
    assert not api.cloud.store.artifacts.list(projects=None)


def test_submit_says_what_it_sent(karez: Karez, api: Api, tree: Path) -> None:
    api.cloud.store.pool.record_nodes([cpu_node("n", 2)], now=1.0)
    done = karez("jobs", "submit", "--code", str(tree), "--", "true")
    assert done.code == 0, done.err
    assert "3 files" in done.err
    assert "left out: .env, by .gitignore (2)" in done.err
    again = karez("jobs", "submit", "--code", str(tree), "--", "true")
    assert "all of it was there already" in again.err
    found = karez("artifacts", "list", "--kind", "code").out
    assert "true-code" in found
    got = tree.parent / "got"
    assert karez("artifacts", "download", "true-code", str(got)).code == 0
    assert (got / "sub" / "a.txt").read_text() == "sub/a.txt"
    assert karez("artifacts", "download", "true-code", str(got)).code == 2


def test_data_is_read_when_it_is_added(karez: Karez, api: Api, tmp_path: Path) -> None:
    bad, good, none = (tmp_path / name for name in ("bad", "good", "none"))
    for folder in (bad, good, none):
        folder.mkdir()
    row = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}'
    (good / "train.jsonl").write_text(row)
    (bad / "train.jsonl").write_text(row + '\n{"messages": []}\n')
    refused = karez("data", "add", str(bad), "--name", "d")
    assert refused.code == 1
    assert refused.err.startswith("train.jsonl line 2, messages: it is empty")
    (none / "notes.txt").write_text("a,b")
    assert "holds no table" in karez("data", "add", str(none), "--name", "d").err
    assert not api.cloud.store.artifacts.list(projects=None)
    assert karez("data", "add", str(good), "--name", "d").code == 0
