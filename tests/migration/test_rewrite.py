# ruff: noqa: E501
"""Whole folders rewritten: layout, idempotence, refusals, and nothing half-written."""

import ast
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import tokenize
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from karez.cli.main import app
from karez.core.errors import BadRequest
from karez.migration import shim
from karez.migration.analyze import apply
from karez.migration.estimate import estimate
from karez.migration.file_writer import write
from karez.migration.findings import Edit, Target
from karez.migration.reports.html_report import as_html
from karez.migration.reports.json_report import as_json, unread
from karez.migration.reports.sarif_report import as_sarif
from karez.migration.rewrite import plan
from karez.migration.scan import MAX_BYTES, scan
from karez.migration.working_tree import check_clean

CODE = "import torch\nx = torch.ones(1).cuda()\ntorch.cuda.synchronize()\n"


def put(root: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, body in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body if isinstance(body, bytes) else body.encode())
    return root


def rewritten(root: Path) -> dict[str, str]:
    made = plan(root, target=Target.AGNOSTIC)
    write(root, made.changes)
    assert not made.failed
    assert not plan(root, target=Target.AGNOSTIC).changes  # a second run changes nothing
    return {change.path: change.after for change in made.changes}


@pytest.mark.story
def test_scripts_packages_and_folders_of_modules_find_the_generated_module(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            "train.py": "from util.misc import f\n" + CODE,
            "util/misc.py": CODE,
            "pkg/__init__.py": "",
            "pkg/deep/__init__.py": "",
            "pkg/deep/a.py": "from . import b\n" + CODE,
            "pkg/deep/b.py": CODE,
            "tools/run.py": CODE,
        },
    )
    after = rewritten(tmp_path)
    assert "\nimport _device\n" in after["train.py"]
    assert "\nimport _device\n" in after["util/misc.py"]
    assert "\nfrom .. import _device\n" in after["pkg/deep/a.py"]
    assert "\nfrom pkg import _device\n" in after["pkg/deep/b.py"]
    assert {"_device.py", "pkg/_device.py", "tools/_device.py"} <= set(after)
    for script in ("train.py", "tools/run.py"):
        code = "import util.misc, pkg.deep.a, pkg.deep.b" if script == "train.py" else "pass"
        env = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, check=True)


SAME = {
    "a module that is handed on": "import torch.cuda as c\nprint([c][0].device_count())\nc.empty_cache()",
    "a module by its name": "from torch.cuda import amp\nprint(getattr(amp, 'GradScaler').__name__)",
    "a part that may be missing": "try:\n    import torch.cuda.nvtx as nvtx\nexcept ImportError:\n"
    "    nvtx = None\nprint(nvtx is not None)",
    "an import in a function": "import torch\ndef f():\n    x = torch.ones(1)\n    from torch import cuda\n"
    "    return cuda.is_available(), x\nprint(f())",
    "a field of another's": "class B:\n    is_cuda = False\nb = B()\nprint(b.is_cuda, B.is_cuda)",
    "a scripted function": "import torch\n@torch.jit.script\ndef f(x: torch.Tensor) -> bool:\n"
    "    if x.is_cuda:\n        return True\n    return False\nprint(f(torch.ones(1)))",
    "a class that is derived from": "import torch\nclass S(torch.cuda.Stream):\n    pass\nprint(S.__name__)",
    "a method `to` of another's": "class C:\n    def to(self, n, m=0):\n        return n + m\n"
    "print(C().to(3, m=2), 'cuda')",
    "threads are set first": "import os\nos.environ['OMP_NUM_THREADS'] = '1'\nimport torch\n"
    "torch.cuda.empty_cache()\nprint(torch.get_num_threads())",
    "a mask of words": 'import torch\ndef dev_type(u):\n    return"cuda"if u else"cpu"\nprint(dev_type(0))',
    "autocast that does nothing": "import torch\nm = torch.nn.Linear(2, 2)\nimport warnings\n"
    "warnings.simplefilter('ignore')\nwith torch.autocast('cuda', dtype=torch.float16):\n"
    "    print(m(torch.ones(1, 2)).dtype)",
    "a type that is compared": "device_type = 'cpu'\nprint(device_type == 'cuda', 'cuda' in device_type)",
}
STORIES = ("a module that is handed on", "an import in a function", "a type that is compared")


@pytest.mark.story
@pytest.mark.skipif(torch.accelerator.is_available(), reason="about machines without a device")
@pytest.mark.parametrize(
    "what",
    [what if what in STORIES else pytest.param(what, marks=pytest.mark.deep) for what in SAME],
)
def test_what_a_cpu_printed_before_it_prints_after(tmp_path: Path, what: str) -> None:
    put(tmp_path, {"a.py": SAME[what] + "\n"})

    def printed() -> str:
        done = subprocess.run(
            [sys.executable, "a.py"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-800:]
        return done.stdout

    before = printed()
    rewritten(tmp_path)
    assert printed() == before


def test_folders_in_packages_scripts_in_packages_and_one_module_for_all(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            "pkg/__init__.py": "",
            "pkg/a.py": "from .sub.c import q\n",
            "pkg/sub/c.py": "q = 1\n" + CODE,
            "pkg/train.py": CODE + "if __name__ == '__main__':\n    print(1)\n",
            "other/run.py": "import torch\ntorch.cuda.empty_cache()\n",
        },
    )
    after = rewritten(tmp_path)
    assert "\nfrom .. import _device\n" in after["pkg/sub/c.py"]
    assert "\nimport _device\n" in after["pkg/train.py"]
    assert after["pkg/_device.py"] == after["other/_device.py"]


def mentions(code: str) -> list[tuple[int, int]]:
    """First and last line of each token, outside comments and docstrings, that names CUDA."""
    docs = {
        line
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for line in range(node.lineno, (node.end_lineno or 0) + 1)
    }
    return [
        (token.start[0], token.end[0])
        for token in tokenize.generate_tokens(io.StringIO(code).readline)
        if token.type in (tokenize.NAME, tokenize.STRING)
        and ("cuda" in token.string.lower() or "nccl" in token.string.lower())
        and token.start[0] not in docs
    ]


def test_no_mention_of_cuda_is_left_that_the_report_does_not_list(tmp_path: Path) -> None:
    scripts = Path(__file__).parent / "scripts"
    files = {path.name: path.read_text() for path in scripts.glob("*.py")}
    files["odd.py"] = (
        "import torch\nfrom my.cuda_tools import f as cuda_f\nimport x.cuda_y as cu_cuda\n"
        "async def cuda_a(nccl_b, *, cuda_c=1):\n    return cuda_f(cuda_d=nccl_b)\n"
        "class CudaE:\n    cuda_g = 'with cuda'\nprint(torch.cuda.unheard_of(), f'{cuda_f} cuda')\n"
    )
    put(tmp_path, files)
    after = rewritten(tmp_path)
    for name in files:
        code = after.get(name, files[name])
        listed = {one.line for one in scan(tmp_path / name).findings}
        for first, last in mentions(code):
            assert listed & set(range(first, last + 1)), (name, code.splitlines()[first - 1])


def test_comments_in_imports_stay(tmp_path: Path) -> None:
    code = "from torch.cuda.amp import (\n    autocast,  # keep me\n    GradScaler,\n)\n"
    put(tmp_path, {"a.py": code})
    assert rewritten(tmp_path)["a.py"] == code.replace("torch.cuda.amp", "_device")


def test_line_ends_marks_and_rights_stay(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            "crlf.py": CODE.replace("\n", "\r\n"),
            "bom.py": b"\xef\xbb\xbf" + CODE.encode(),
            "late.py": CODE.rstrip("\n"),
            "umlaut.py": "import torch\nü = torch.ones(1).cuda()  # Grüße\nz = 'ß', ü.cuda()\n",
        },
    )
    (tmp_path / "late.py").chmod(0o755)
    rewritten(tmp_path)
    crlf = (tmp_path / "crlf.py").read_bytes()
    assert crlf.count(b"\r\n") == crlf.count(b"\n") == 4
    assert (tmp_path / "bom.py").read_bytes().startswith(b"\xef\xbb\xbfimport torch")
    assert not (tmp_path / "late.py").read_text().endswith("\n")
    assert (tmp_path / "late.py").stat().st_mode & 0o777 == 0o755
    assert "z = 'ß', ü.to(_device.type)\n" in (tmp_path / "umlaut.py").read_text()


def test_what_cannot_be_read_is_listed_and_left_alone(tmp_path: Path) -> None:
    bad: dict[str, str | bytes] = {
        "broken.py": "import torch\nprint 'cuda'\n",
        "latin.py": "# é cuda\n".encode("latin-1"),
        "binary.py": b"\0cuda",
        "huge.py": b"#cuda\n" * (MAX_BYTES // 6 + 1),
        "mac.py": b"import torch\rx.cuda()\r",
    }
    put(tmp_path, {**bad, "good.py": CODE})
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "again.py").symlink_to(tmp_path / "good.py")
    report = scan(tmp_path)
    assert {path for path, _ in unread(report)} == set(bad)
    assert [one.path for one in report.findings] == ["good.py"] * 2
    rewritten(tmp_path)
    for name in bad:
        body = bad[name]
        before = body if isinstance(body, bytes) else body.encode()
        assert (tmp_path / name).read_bytes() == before


def test_a_folder_that_is_not_there_and_a_module_that_is_not_ours(tmp_path: Path) -> None:
    with pytest.raises(BadRequest):
        scan(tmp_path / "nowhere")
    put(tmp_path, {"a.py": CODE, "_device.py": "mine = 1\n"})
    with pytest.raises(BadRequest, match="not generated"):
        plan(tmp_path, target=Target.AGNOSTIC)


def test_nothing_is_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, {"a.py": CODE, "b.py": CODE})
    made = plan(tmp_path, target=Target.AGNOSTIC)
    count, replace = 0, os.replace

    def failing(source: str, target: Path) -> None:
        nonlocal count
        count += 1
        if count == 2:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(BadRequest, match="No space left"):
        write(tmp_path, made.changes)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.py", "b.py"]
    assert (tmp_path / "a.py").read_text() == (tmp_path / "b.py").read_text() == CODE


def test_a_rewrite_without_git_leaves_a_patch_that_takes_it_back(tmp_path: Path) -> None:
    files = {"a.py": CODE, "late.py": CODE.rstrip("\n"), "crlf.py": CODE.replace("\n", "\r\n")}
    put(tmp_path, files)
    done = CliRunner().invoke(app, ["migrate", "rewrite", str(tmp_path), "--in-place"])
    assert done.exit_code == 0, done.output
    assert "patch -R -p1 < karez-migrate.patch" in done.stderr
    assert "_device" in (tmp_path / "a.py").read_text()
    with (tmp_path / "karez-migrate.patch").open() as patch:
        subprocess.run(["patch", "-R", "-p1", "--binary"], cwd=tmp_path, stdin=patch, check=True)
    for name, body in files.items():
        assert (tmp_path / name).read_bytes() == body.encode()
    assert not (tmp_path / "_device.py").exists()


def test_a_tree_with_changes_is_not_written_to(tmp_path: Path) -> None:
    put(tmp_path, {"a.py": CODE})
    assert not check_clean(tmp_path)
    for words in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"],
    ):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    assert check_clean(tmp_path)
    put(tmp_path, {"b.py": ""})
    with pytest.raises(BadRequest, match="1 uncommitted"):
        check_clean(tmp_path)


def test_portable_repositories_and_those_of_kernels_are_refused(tmp_path: Path) -> None:
    portable = "import torch\nif is_npu_available():\n    x.npu()\nelse:\n    x.cuda()\n"
    put(tmp_path / "p", {f"{name}.py": portable for name in "abc"} | {"d.py": CODE})
    with pytest.raises(BadRequest, match="portable by design"):
        plan(tmp_path / "p", target=Target.AGNOSTIC)
    put(tmp_path / "k", {"a.py": CODE, "k.cu": "__global__ void k() {}\n" * 40})
    with pytest.raises(BadRequest, match="kernels for CUDA"):
        plan(tmp_path / "k", target=Target.AGNOSTIC)
    forced = plan(tmp_path / "k", target=Target.AGNOSTIC, force=True)
    assert {change.path for change in forced.changes} == {"a.py", "_device.py"}


def test_notebooks_keep_their_form(tmp_path: Path) -> None:
    cells: list[dict[str, Any]] = [
        {"cell_type": "markdown", "metadata": {}, "source": ["# cuda\n"]},
        {
            "cell_type": "code",
            "metadata": {},
            "outputs": [],
            "execution_count": 1,
            "source": ["%matplotlib inline\n", "import torch\n", "device = 'cuda'"],
        },
        {
            "cell_type": "code",
            "metadata": {},
            "outputs": [],
            "execution_count": None,
            "source": ["!nvidia-smi\n", "x = torch.ones(1).cuda()\n"],
        },
    ]
    body = json.dumps({"cells": cells, "metadata": {}, "nbformat": 4}, indent=1) + "\n"
    odd = json.dumps({"nbformat": 4, "cells": cells}, separators=(" ,", " :"), indent="\t")
    for cell in cells[1:]:
        cell["note"] = '\u00e9 \\",'  # where a pattern would lose its way
    text = {**cells[2], "source": "x = 1  # \u00e9\ny = x.cuda()"}
    tight = json.dumps({"cells": [*cells, text]})
    put(tmp_path, {"n.ipynb": body, "tight.ipynb": tight, "odd.ipynb": odd, "none.ipynb": "{}"})
    after = rewritten(tmp_path)
    found = json.loads(after["n.ipynb"])["cells"]
    assert found[1]["source"] == [
        "%matplotlib inline\n",
        "import torch\n",
        "import _device\n",
        "device = _device.type",
    ]
    assert found[2]["source"][1] == "x = torch.ones(1).to(_device.type)\n"
    assert after["n.ipynb"].count("\n") == body.count("\n") + 1
    for name, before in (("tight.ipynb", tight), ("odd.ipynb", odd)):
        made = json.loads(after[name])["cells"]
        assert made[1]["source"] == found[1]["source"]
        assert made[2]["source"] == found[2]["source"]
        import_line = re.compile(r'"import _device\\n"\s*,\s*')
        undone = import_line.sub("", after[name]).replace(".to(_device.type)", ".cuda()")
        assert undone.replace("= _device.type", "= 'cuda'") == before
    assert json.loads(after["tight.ipynb"])["cells"][3]["source"].endswith("y = x.to(_device.type)")


def test_the_target_npu_speaks_to_torch_npu(tmp_path: Path) -> None:
    code = (
        "import torch\nx.cuda()\nd = torch.device('cuda')\ntorch.cuda.empty_cache()\n"
        "torch.distributed.init_process_group('nccl')\n"
    )
    put(tmp_path, {"a.py": code})
    (change,) = plan(tmp_path, target=Target.NPU).changes
    write(tmp_path, [change])
    assert not plan(tmp_path, target=Target.NPU).changes
    assert change.after == (
        "import torch\nimport torch_npu  # noqa: F401\nx.npu()\nd = torch.device('npu')\n"
        "torch.npu.empty_cache()\ntorch.distributed.init_process_group('hccl')\n"
    )


def test_other_files_are_read_too(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            "run.sh": "#!/bin/sh\n# CUDA_VISIBLE_DEVICES=9\nCUDA_VISIBLE_DEVICES=0,1 python a.py\n"
            "export NCCL_DEBUG=INFO\nnvidia-smi\n",
            "Dockerfile": "FROM nvidia/cuda:12.1\nRUN nvcc --version\n",
            "c.yaml": "model:\n  device: cuda:0\n",
            "requirements.txt": "torch\nflash-attn==2.5\n",
            "a.cpp": "#include <cuda.h>\nint x;\n",
        },
    )
    rules = {(one.path, one.rule) for one in scan(tmp_path).findings}
    assert rules == {
        ("run.sh", "shell-variable"),
        ("run.sh", "shell-nccl"),
        ("run.sh", "shell-program"),
        ("Dockerfile", "docker-image"),
        ("Dockerfile", "shell-program"),
        ("c.yaml", "settings-device"),
        ("requirements.txt", "requirement"),
        ("a.cpp", "native-cuda"),
    }
    after = plan(tmp_path, target=Target.AGNOSTIC, force=True).changes[0].after
    assert "CUDA_VISIBLE_DEVICES=0,1 ASCEND_RT_VISIBLE_DEVICES=0,1 python a.py" in after


def test_reports_add_up(tmp_path: Path) -> None:
    put(tmp_path, {"a.py": CODE + "import triton\nx.data_ptr()\n"})
    report = scan(tmp_path)
    found, sums = as_json(report), estimate(report)
    assert sum(found["counts"].values()) == len(found["findings"])
    assert sums.hours == pytest.approx(sum(row.hours for row in sums.rows) + sums.verify_h)
    assert 0 < sums.score < 1
    sarif = as_sarif(report)["runs"][0]
    known = {rule["id"] for rule in sarif["tool"]["driver"]["rules"]}
    assert {result["ruleId"] for result in sarif["results"]} == known
    page = as_html(report)
    assert "triton" in page
    assert "<script" not in page


def loaded(tmp_path: Path, names: frozenset[str]) -> ModuleType:
    path = tmp_path / "_device.py"
    path.write_text(shim.write_shim(names))
    spec = importlib.util.spec_from_file_location("_device", path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.mark.skipif(torch.accelerator.is_available(), reason="about machines without a device")
def test_the_generated_module_does_on_a_cpu_what_torch_cuda_does_there(tmp_path: Path) -> None:
    made, cuda = loaded(tmp_path, shim.NAMES), torch.cuda
    for name in (
        "empty_cache",
        "memory_allocated",
        "manual_seed_all",
        "get_rng_state_all",
        "is_initialized",
        "memory_reserved",
        "max_memory_allocated",
    ):
        args = (1,) if "seed" in name else ()
        assert getattr(made, name)(*args) == getattr(cuda, name)(*args), name
    for name in ("current_device", "get_device_name"):
        with pytest.raises((AssertionError, RuntimeError)):
            getattr(made, name)()
    assert (made.type, made.accelerator, made.accelerator_backend) == ("cpu", "cuda", "nccl")
    assert made.backend == "gloo"
    assert made.device(3) == torch.device("cpu")
    assert made.name(1) == "cpu"
    state = torch.get_rng_state()
    made.manual_seed(5)
    assert torch.equal(torch.get_rng_state(), state)  # the CPU's stream is left alone
    net = torch.nn.Linear(2, 2)
    with made.autocast():
        assert net(torch.ones(1, 2)).dtype == torch.float32
    assert not made.GradScaler().is_enabled()
    assert not made.is_accelerated(torch.ones(1))
    with made.device_context(0), made.stream(None):
        assert made.FloatTensor([1, 2]).tolist() == [1.0, 2.0]
    assert made.LongTensor(2, 3).shape == (2, 3)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 5), st.text(max_size=4)), max_size=8))
def test_edits_that_do_not_overlap_are_all_made(spans: list[tuple[int, int, str]]) -> None:
    text, at, edits, want = "abcdefghij" * 5, 0, [], []
    for start, size, new in sorted(spans):
        if start < at:
            continue
        edits.append(Edit(start=start, end=start + size, text=new))
        want += [text[at:start], new]
        at = start + size
    assert apply(text, edits) == "".join([*want, text[at:]])


def test_a_repository_is_scanned_by_its_address_and_a_wrong_one_is_told(tmp_path: Path) -> None:
    put(tmp_path / "r", {"a.py": CODE})
    for words in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"],
    ):
        subprocess.run(["git", *words], cwd=tmp_path / "r", check=True)
    address = f"file://{tmp_path / 'r'}"
    done = CliRunner().invoke(app, ["migrate", "scan", address, "--json"])
    assert json.loads(done.stdout)["root"] == address
    assert json.loads(done.stdout)["counts"]["automatic"]
    wrong = CliRunner().invoke(app, ["migrate", "scan", f"{address}-none"])
    assert isinstance(wrong.exception, BadRequest)
    assert "could not be cloned: fatal:" in wrong.exception.what()
    assert "clone it elsewhere" in wrong.exception.hint()
