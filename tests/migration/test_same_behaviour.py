# ruff: noqa: E501
"""Rewritten programs start and do what they did: layouts, older torch, storages, half edits."""

import subprocess
import sys
from pathlib import Path

import pytest

from karez.migration import shim
from karez.migration.analyze import ScanOptions, apply, examine
from karez.migration.findings import Kind
from tests.migration.test_rewrite import CODE, put, rewritten
from tests.on_npu import answer_of

MAIN = "if __name__ == '__main__':\n    print('ran')\n"


def edited(code: str) -> str:
    """The code with its automatic edits, without the `import torch` before it."""
    report = examine("a.py", "import torch\n" + code, ScanOptions())
    edits = [e for one in report.findings if one.kind == Kind.AUTOMATIC for e in one.edits]
    return apply("import torch\n" + code, edits).removeprefix("import torch\n")


def run(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-800:]
    return done.stdout


@pytest.mark.story
def test_packages_under_plain_folders_and_files_that_are_run_and_imported_find_the_module(
    tmp_path: Path,
) -> None:
    put(
        tmp_path,
        {
            # `proj` has no __init__.py: the package is found as proj.sub only
            "main.py": "from proj.sub import x\nfrom pkg.tools import both\nfrom pkg import top\n",
            "proj/sub/__init__.py": "",
            "proj/sub/x.py": CODE.replace("torch.ones(1).cuda()", "1"),
            "proj/sub/y.py": "from proj.sub import x\nimport torch\ntorch.cuda.empty_cache()\n",
            "pkg/__init__.py": "",
            "pkg/top.py": "import torch\ntorch.cuda.empty_cache()\n" + MAIN,
            "pkg/tools/__init__.py": "",
            "pkg/tools/both.py": "import torch\nfrom torch.cuda.amp import autocast\ntorch.cuda.empty_cache()\n"
            + MAIN,
        },
    )
    after = rewritten(tmp_path)
    assert "\nfrom proj.sub import _device\n" in after["proj/sub/x.py"]
    assert "\n    from pkg import _device\nexcept ImportError:" in after["pkg/top.py"]
    run(tmp_path, "-c", "import main, proj.sub.y")
    assert run(tmp_path, "pkg/top.py") == run(tmp_path, "pkg/tools/both.py") == "ran\n"


def test_one_module_serves_a_package_and_the_scripts_that_import_it(tmp_path: Path) -> None:
    plain = {
        "pkg/a.py": "from . import b\n" + CODE,
        "pkg/b.py": "",
        "train.py": "import pkg\n" + CODE,
    }
    put(tmp_path / "one", {"pkg/__init__.py": "# nothing\n", **plain})
    put(tmp_path / "two", {"pkg/__init__.py": "import os\n", **plain})
    assert {name for name in rewritten(tmp_path / "one") if "_device" in name} == {"pkg/_device.py"}
    # importing this package does something, and when it does must not change
    two = {name for name in rewritten(tmp_path / "two") if "_device" in name}
    assert two == {"_device.py", "pkg/_device.py"}


def test_code_for_an_older_torch_asks_the_generated_module_alone(tmp_path: Path) -> None:
    code = "import torch\nprint(torch.cuda.is_available(), torch.cuda.device_count())\n"
    for name, pin in (("old", "torch==2.1.0"), ("none", "numpy"), ("new", "torch>=2.6")):
        put(tmp_path / name, {"a.py": code, "requirements.txt": pin + "\n"})
        after = rewritten(tmp_path / name)["a.py"]
        assert ("torch.accelerator" in after) == (name == "new")
        assert ("_device.is_available(), _device.device_count()" in after) == (name != "new")


@pytest.mark.story
def test_the_generated_module_works_without_what_came_with_later_torch(tmp_path: Path) -> None:
    (tmp_path / "_device.py").write_text(shim.write_shim(shim.NAMES))
    (tmp_path / "old.py").write_text(
        "import torch, torch.distributed\n"
        "for owner, names in ((torch, 'accelerator get_device_module get_autocast_dtype'\n"
        "        ' set_autocast_dtype set_default_device'),\n"
        "        (torch.amp, 'GradScaler'),\n"
        "        (torch.distributed, 'get_default_backend_for_device is_backend_available')):\n"
        "    for name in names.split():\n"
        "        delattr(owner, name)\n"
        "import warnings\nwarnings.simplefilter('ignore')\n"
        "import _device as d\n"
        "print(d.type, d.backend, d.is_available(), d.device_count(), d.device(1))\n"
        "print(d.is_autocast_enabled(), d.is_backend_available(), d.GradScaler().is_enabled())\n"
    )
    printed = run(tmp_path, "old.py")
    assert printed.splitlines()[0] == "cpu gloo False 0 cpu"
    assert printed.splitlines()[1].endswith("False")


@pytest.mark.story
def test_a_look_at_the_device_starts_no_driver_that_a_forked_process_would_miss() -> None:
    code = """
import json, os, sys, tempfile
from karez.migration.shim import NAMES, write_shim
folder = tempfile.mkdtemp()
open(folder + "/_device.py", "w").write(write_shim(NAMES))
sys.path.insert(0, folder)
import io, torch, _device
where = _device.type
child = os.fork()
if not child:
    os._exit(0 if torch.ones(2, device=_device.type).sum().item() == 2 else 1)
_, status = os.waitpid(child, 0)
file = io.BytesIO()
torch.save({"w": torch.arange(3.0)}, file)
file.seek(0)
loaded = torch.load(file, map_location=lambda storage, loc: storage.to(device=_device.device(0)))
print(json.dumps({"where": where, "child": status, "loaded": str(loaded["w"].device),
    "autocast": [_device.is_autocast_enabled(), str(_device.get_autocast_dtype())]}))
"""
    assert answer_of(code) == {
        "where": "npu",
        "child": 0,
        "loaded": "npu:0",
        "autocast": [False, "torch.float16"],
    }


@pytest.mark.parametrize(
    ("code", "after"),
    [
        (
            "torch.load(p, map_location=lambda storage, loc: storage.cuda(n))",
            "torch.load(p, map_location=lambda storage, loc: storage.to(device=_device.device(n)))",
        ),
        (
            "def m(s, location): return s.cuda()",
            "def m(s, location): return s.to(device=_device.type)",
        ),
        (
            "x.untyped_storage().cuda(0, True)",
            "x.untyped_storage().to(device=_device.device(0), non_blocking=True)",
        ),
        (
            'run("cuda:0" if torch.cuda.is_available() else "cpu")',
            'run(_device.name(0) if torch.accelerator.is_available() else "cpu")',
        ),
        (
            'w = "cuda" if torch.cuda.is_available() else "numpy"',
            'w = "cuda" if torch.cuda.is_available() else "numpy"',
        ),
        (
            "if torch.cuda.is_available():\n    w = 'cuda'\nelse:\n    w = 'cpu'",
            "if torch.accelerator.is_available():\n    w = _device.type\nelse:\n    w = 'cpu'",
        ),
        (
            "if torch.cuda.is_available():\n    w = 'cuda'\nelse:\n    w = 'blas'",
            "if torch.cuda.is_available():\n    w = 'cuda'\nelse:\n    w = 'blas'",
        ),
        ("model.to(local_rank)", "model.to(_device.device(local_rank))"),
    ],
)
def test_what_belongs_together_is_rewritten_together(code: str, after: str) -> None:
    assert edited(code + "\n") == after + "\n"


LEFT = {
    "an operator's registration": "@torch.library.custom_op('a::b', mutates_args=(), device_types='cuda')\ndef f(x): return x",
    "a choice of an architecture": "p.add_argument('--gpu-arch-type', choices=['cpu', 'cuda', 'rocm'], default='cuda')",
    "a fake of a test": "gpu = FakeDevice(device='cuda')\nmock_model.device = 'cuda'",
    "a skip of a test": "@pytest.mark.skipif(not torch.cuda.is_available(), reason='x')\ndef test_a(): pass",
    "a test that pretends": "def test_a(monkeypatch):\n    monkeypatch.setattr('torch.cuda.is_available', yes)\n    device = 'cuda'",
    "fake tensors": "with FakeTensorMode():\n    x = torch.empty(3, device='cuda')",
    "a scripted function": "@torch.jit.script\ndef f(x):\n    with torch.cuda.amp.autocast(enabled=False):\n        return x",
    "a module that is scripted": "class M(torch.nn.Module):\n    def forward(self, x):\n        with torch.autocast('cuda'):\n            return x\nm = torch.jit.script(M())",
    "a source that is pickled": "@persistence.persistent_class\nclass M:\n    def f(self, x): return x.cuda()",
    "a guard of an implementation": "if impl == 'cuda' and x.device.type == 'cuda' and ready(): y = fast(x)",
    "a guard of apex": "from apex.multi_tensor_apply import multi_tensor_applier as f\nif ok and x.is_cuda: f(x)",
    "a plug-in": "def _init(): return get_plugin(sources=['a.cpp', 'a.cu'])\nif x.is_cuda and _init(): y = 1",
}


@pytest.mark.parametrize("what", LEFT)
def test_what_an_edit_could_break_is_a_question(what: str) -> None:
    code = LEFT[what] + "\n"
    assert edited(code) == code
    report = examine("a.py", "import torch\n" + code, ScanOptions())
    assert any(one.question for one in report.findings)


def test_a_guard_of_kernels_in_another_file_stays(tmp_path: Path) -> None:
    guard = "import torch\nfrom ops.fused import act\ndef f(x):\n    if x.is_cuda:\n        return act(x)\n    return x\n"
    put(
        tmp_path,
        {
            "model.py": guard,
            "ops/__init__.py": "",
            "ops/fused.py": "import torch\nfrom torch.utils.cpp_extension import load\nact = load(name='a', sources=['a.cu'])\n",
        },
    )
    assert "model.py" not in rewritten(tmp_path)
