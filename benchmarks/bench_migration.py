"""Speed of scanning and rewriting a repository: karez, grep, and libcst's codemod runner.

The repository is generated: FILES (400) files of about 100 lines, every second of which mentions
CUDA. All run on one core. grep only finds lines; libcst's runner renames three calls, with names
resolved; karez checks all of its rules. Peak memory is that of karez on the repository and on one
four times as large.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from report import report

FILES = int(os.environ.get("FILES", "400"))
BODY = "\n\n".join(
    f"def f{n}(x, y=None):\n    # a comment that stays\n"
    f"    z = x * {n} + (y or 0)\n    return z if z > {n} else x"
    for n in range(16)
)
CUDA = """
import torch
import torch.nn as nn
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
model = nn.Linear(3, 4).cuda()
torch.cuda.synchronize()
with torch.cuda.amp.autocast():
    out = model(torch.ones(2, 3).to("cuda:0"))
"""
CODEMOD = """
import libcst as cst
from libcst.codemod import CodemodContext, VisitorBasedCodemodCommand
from libcst.metadata import QualifiedNameProvider

NAMES = {"torch.cuda.is_available": "torch.accelerator.is_available",
         "torch.cuda.synchronize": "torch.accelerator.synchronize",
         "torch.cuda.amp.autocast": "torch.autocast"}


class Rename(VisitorBasedCodemodCommand):
    DESCRIPTION = "rename"
    METADATA_DEPENDENCIES = (QualifiedNameProvider,)

    def leave_Attribute(self, original, updated):
        for name in self.get_metadata(QualifiedNameProvider, original, set()):
            if name.name in NAMES:
                return cst.parse_expression(NAMES[name.name])
        return updated
"""


def main() -> None:
    """Run each tool once, and measure CPU time of the process and its children."""
    with tempfile.TemporaryDirectory(prefix="kz-") as name:
        folder = Path(name)
        lines = make(folder / "repository", FILES)
        make(folder / "large", 4 * FILES)
        (folder / "codemods").mkdir()
        (folder / "codemods" / "__init__.py").write_text("")
        (folder / "codemods" / "rename.py").write_text(CODEMOD)
        (folder / ".libcst.codemod.yaml").write_text("modules: ['codemods']\n")
        karez = [sys.executable, "-m", "karez.cli.main", "migrate"]
        root = str(folder / "repository")
        ways = {
            "karez scan": [*karez, "scan", root, "--workers", "1", "--json"],
            "karez rewrite": [*karez, "rewrite", root, "--json"],
            "grep": ["grep", "-rnE", "cuda|nccl", root],
            "libcst codemod": [
                sys.executable,
                "-m",
                "libcst.tool",
                "codemod",
                "rename.Rename",
                "-j",
                "1",
                "--hide-progress",
                "--no-format",
                root,
            ],
        }
        rows = []
        for what, words in ways.items():
            wall, cpu, peak = timed(words, folder)
            rows.append(
                {
                    "what": what,
                    "lines": lines,
                    "lines_per_cpu_s": round(lines / cpu),
                    "cpu_s": round(cpu, 2),
                    "wall_s": round(wall, 2),
                    "peak_mb": peak,
                }
            )
        wall, cpu, peak = timed([*karez, "scan", str(folder / "large"), "--workers", "1"], folder)
        rows.append(
            {
                "what": "karez scan, 4 x",
                "lines": 4 * lines,
                "lines_per_cpu_s": round(4 * lines / cpu),
                "cpu_s": round(cpu, 2),
                "wall_s": round(wall, 2),
                "peak_mb": peak,
            }
        )
    report("scanning a repository", rows)


def make(root: Path, files: int) -> int:
    """Generate a repository. Returns its number of lines."""
    lines = 0
    for number in range(files):
        path = root / f"p{number % 20}" / f"m{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = (CUDA if number % 2 else "import os\n") + BODY + "\n"
        path.write_text(text)
        lines += text.count("\n")
    return lines


def timed(words: list[str], folder: Path) -> tuple[float, float, int]:
    """Run a command. Returns wall seconds, CPU seconds and peak memory in MB."""
    env = {**os.environ, "PYTHONPATH": str(folder)}
    began = time.monotonic()
    process = subprocess.Popen(
        words, cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=sys.stderr
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{words} failed: {status}")
    used: resource.struct_rusage = usage
    return time.monotonic() - began, used.ru_utime + used.ru_stime, used.ru_maxrss // 1024


if __name__ == "__main__":
    main()
