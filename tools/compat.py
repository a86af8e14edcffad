"""What `make compat` runs on another Python: all that needs neither torch nor Ray.

`python tools/compat.py requirements` prints what to install; `python tools/compat.py imports`
imports every module of karez that needs neither, and fails if another one cannot.
"""

import importlib
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
LARGE = {"ray", "torchdata"}
"""Left out: Ray, and what brings torch."""
MAY_BE_MISSING = {"numba", "peft", "ray", "torch", "transformers", "xllamacpp", "yaml"}
"""Modules of what is left out; who imports one of them at its top is counted, not run."""


def requirements() -> list[str]:
    """The base, the server and the developers' tools."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    every = [*project["dependencies"], *extras["server"], *extras["dev"]]
    return [one for one in every if re.split(r"[\[<>=]", one)[0] not in LARGE]


def imports() -> int:
    """0: every module is imported, or lacks only what was left out."""
    done, lacking, broken = 0, 0, 0
    src = ROOT / "src"
    for file in sorted((src / "karez").rglob("*.py")):
        if "migrations" in file.parts:  # Alembic's own, which it loads itself
            continue
        name = ".".join(file.relative_to(src).with_suffix("").parts).removesuffix(".__init__")
        try:
            importlib.import_module(name)
            done += 1
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] in MAY_BE_MISSING:
                lacking += 1
            else:
                broken += 1
                sys.stderr.write(f"{name}: {error}\n")
    version = ".".join(map(str, sys.version_info[:3]))
    sys.stdout.write(
        f"Python {version}: {done} modules imported, {lacking} need torch, Ray or numba\n"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    if sys.argv[1:] == ["requirements"]:
        sys.stdout.write("\n".join(requirements()) + "\n")
    else:
        sys.exit(imports())
