"""The distribution: what each extra installs, and a wheel in an environment of its own."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from karez.core.parts import EXTRAS, missing_part

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COMES_WITH = {"annotated_types": "pydantic", "anyio": "fastapi", "starlette": "fastapi"}
"""Modules of packages that another package of the same extra, or of the base, brings along."""


def names(requirements: list[str]) -> set[str]:
    """`psycopg[binary]>=3.3` is `psycopg`."""
    return {re.split(r"[\[<>=]", one)[0].lower().replace("_", "-") for one in requirements}


def imported() -> dict[str, set[str]]:
    """For each foreign module that src imports, the files that do."""
    found: dict[str, set[str]] = {}
    for file in (ROOT / "src" / "karez").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module or ""]
            else:
                continue
            for module in modules:
                top = module.partition(".")[0]
                if top not in sys.stdlib_module_names and top != "karez":
                    found.setdefault(top, set()).add(str(file.relative_to(ROOT)))
    return found


def test_every_foreign_import_is_of_the_base_or_of_a_named_extra() -> None:
    owners = packages_distributions()
    base = names(PROJECT["dependencies"])
    for module, files in imported().items():
        owner = owners.get(module, [module])[0].lower().replace("_", "-")
        extras = [extra for extra, modules in EXTRAS.items() if module in modules]
        assert COMES_WITH.get(module, owner) in base or extras, (
            f"{module} of {sorted(files)} is in no extra"
        )
        for extra in extras:
            listed = names(PROJECT["optional-dependencies"][extra])
            assert COMES_WITH.get(module, owner) in listed, f"{module} is not in {extra}"


def test_every_requirement_of_an_extra_is_pinned_in_the_constraints() -> None:
    pinned = {
        line.partition("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    for extra in ("server", "node", "migrate", "simulate", "fast", "bench", "dev"):
        assert names(PROJECT["optional-dependencies"][extra]) - {"karez"} <= pinned, extra
    assert names(PROJECT["dependencies"]) <= pinned


@pytest.mark.parametrize(
    ("module", "command", "extra"),
    [
        ("structlog", "karez up", "server"),
        ("numpy", "karez simulate", "simulate"),
        ("numpy", "karez migrate", "migrate"),
        ("torch", "karez migrate", "migrate"),
        ("torch.nn", "training.session", "node"),
        ("ray", "karez join", "node"),
    ],
)
def test_a_missing_module_names_the_extra_that_brings_it(
    module: str, command: str, extra: str
) -> None:
    error = missing_part(ModuleNotFoundError(name=module), command)
    assert error is not None
    assert error.hint() == f"Install it: pip install 'karez[{extra}]'"


def test_a_missing_module_of_our_own_stays_an_error_of_ours() -> None:
    assert missing_part(ModuleNotFoundError(name="karez.nothing"), "karez up") is None


class Installed:
    """A fresh environment that holds the wheel and its base dependencies."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        source = folder / "source"
        source.mkdir()
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, source)
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / "src", source / "src", ignore=ignored)
        _check([sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(source)])
        _check([sys.executable, "-m", "venv", str(folder / "venv")])
        (wheel,) = folder.glob("karez-*.whl")
        self.python = folder / "venv" / "bin" / "python"
        pip = [str(self.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _check([*pip, "-c", str(ROOT / "constraints.txt"), str(wheel)])

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run a program of the environment, with a state folder of its own and no PYTHONPATH."""
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        env |= {"KAREZ_HOME": str(self.folder / "home"), "KAREZ_URL": "http://127.0.0.1:1"}
        program = str(self.python.parent / words[0])
        return subprocess.run(
            [program, *words[1:]],
            env=env,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )


def _check(command: list[str]) -> None:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("wheel"))


@pytest.mark.story
def test_the_wheel_alone_is_a_client_and_a_command_line(installed: Installed) -> None:
    shown = installed.run("karez", "--help")
    assert (shown.returncode, "  jobs " in shown.stdout) == (0, True), shown.stderr
    made = installed.run("python", "-c", "import karez; print(karez.Client().address.url)")
    assert made.stdout.strip() == "http://127.0.0.1:1", made.stderr
    listed = installed.run("karez", "jobs", "list")
    assert listed.returncode not in (0, 2), "not misused: refused"
    assert "karez does not answer at http://127.0.0.1:1." in listed.stderr
    assert "Traceback" not in listed.stderr


@pytest.mark.story
def test_the_wheel_alone_brings_no_package_of_the_server(installed: Installed) -> None:
    extras = sorted(set().union(*EXTRAS.values()) - {"anyio"})  # anyio comes with httpx
    code = f"from importlib.util import find_spec; print([m for m in {extras} if find_spec(m)])"
    assert installed.run("python", "-c", code).stdout.strip() == "[]"


@pytest.mark.story
@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (["karez", "up"], "server"),
        (["karezd", "control"], "server"),
        (["karez", "join", "http://127.0.0.1:1", "--token", "t", "--address", "127.0.0.1"], "node"),
        (["karez", "simulate", "training", "--devices", "8"], "simulate"),
        (["karez", "migrate", "compare", "a", "b"], "migrate"),
        (["python", "-c", "from karez import training; training.session()"], "node"),
    ],
)
def test_what_needs_an_extra_says_which(installed: Installed, words: list[str], extra: str) -> None:
    done = installed.run(*words)
    assert done.returncode != 0
    assert f"pip install 'karez[{extra}]'" in done.stderr
    assert words[0] == "python" or "Traceback" not in done.stderr


AS_ELSEWHERE = """
import asyncio, importlib, json, os, pkgutil, signal, sys, tempfile, zoneinfo
import cryptography, httpx, packaging.version, pathspec, pydantic, rich.console, typer.testing
sys.platform = sys.argv[1]
missing = ["fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "readline"]
sys.modules.update(dict.fromkeys(missing if sys.platform == "win32" else [], None))
linux = ["sched_getaffinity", "sched_setaffinity", "pidfd_open", "setns", "unshare", "memfd_create"]
posix = ["fork", "setsid", "killpg", "getuid", "geteuid", "setpgid", "waitid", "mkfifo"]
for name in linux + (posix if sys.platform == "win32" else []):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGKILL", "SIGHUP", "SIGUSR1", "SIGQUIT") if sys.platform == "win32" else ():
    delattr(signal, name)
import karez.cli.remote, karez.client
from karez.cli.main import app
from karez.core.errors import KarezError
for found in pkgutil.walk_packages(karez.cli.remote.__path__, "karez.cli.remote."):
    importlib.import_module(found.name)
told = {}
for words in (["--help"], ["jobs", "list"], ["up"], ["demo", "--once"], ["join", "http://127.0.0.1:9",
        "--token", "t", "--address", "127.0.0.1"], ["doctor"]):
    done = typer.testing.CliRunner().invoke(app, words)
    is_ours = done.exception is None or isinstance(done.exception, (KarezError, SystemExit))
    told[words[0]] = getattr(done.exception, "code", "") if is_ours else repr(done.exception)
told["client"] = karez.Client(url="http://127.0.0.1:9", key="k") is not None
print(json.dumps(told))
"""


@pytest.mark.story
@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_client_and_commands_work_where_there_is_no_linux(tmp_path: Path, system: str) -> None:
    """As far as imports show: what other systems lack is taken away before they are made."""
    home = {"HOME": str(tmp_path), "KAREZ_HOME": str(tmp_path), "KAREZ_URL": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-c", AS_ELSEWHERE, system],
        env={**os.environ, **home},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told.pop("doctor") in (0, 1, "")
    assert told == {
        "--help": "",
        "jobs": "unreachable",
        "up": "other-system",
        "demo": "other-system",
        "join": "other-system",
        "client": True,
    }
