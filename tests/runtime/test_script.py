"""A warm script behaves as `python script.py` does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from karez.core.artifacts import FileEntry
from karez.drivers.steward.staging import BlobSource
from tests.drivers.test_steward import A, exit_of, spec
from tests.fakes import DirectFabric

WARM = "karez.runtime.script:main"
SPAWN = """
import multiprocessing, os, sys
from concurrent.futures import ProcessPoolExecutor

class Row:  # pickled by its name in this script
    def __init__(self, number):
        self.number = number

def double(row):
    return 2 * row.number

seen = (__name__, os.path.basename(__file__), os.path.isabs(__file__), sys.argv[1:])
os.write(1, f"{seen}\\n".encode())  # in one piece: workers write at the same time
if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        print(list(pool.map(double, [Row(1), Row(2)])))
"""
ENDS = """
import atexit, sys, threading, time
atexit.register(lambda: print("exit handler"))
sys.excepthook = lambda kind, error, trace: print("hook", error)
threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()
HOW
"""

pytestmark = pytest.mark.story


def warm(fabric: DirectFabric, folder: Path, text: str, *arguments: str) -> tuple[int, str]:
    """Exit code and output of a script that is run warm."""
    (folder / "text").write_text(text)
    stored = BlobSource(folder=str(folder / "blobs")).store(folder / "text", folder)
    code = FileEntry(path="sub/main.py", sha256=stored.sha256, size_bytes=stored.size_bytes)
    command = (WARM, "sub/main.py", *arguments)
    fabric.start(A, spec(*command, warm=True, code=(code,)))
    ended = exit_of(fabric)
    return ended.data["code"], fabric.read_log(A, "job-1.0.1", 0, 100_000).data.decode()


def plain(folder: Path, text: str, *arguments: str) -> tuple[int, str]:
    """Exit code and output of `python sub/main.py`."""
    (folder / "plain" / "sub").mkdir(parents=True)
    (folder / "plain" / "sub" / "main.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "sub/main.py", *arguments],
        cwd=folder / "plain",
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_worker_processes_of_every_start_method_work(
    fabric: DirectFabric, tmp_path: Path, method: str
) -> None:
    code, said = warm(fabric, tmp_path, SPAWN, method)
    assert (code, said.count("[2, 4]")) == (0, 1), said
    assert sorted(set(said.splitlines())) == sorted(
        set(plain(tmp_path, SPAWN, method)[1].splitlines())
    )


@pytest.mark.parametrize("how", ["", "1 / 0", "sys.exit(7)", "sys.exit('why')"])
def test_threads_and_exit_handlers_are_waited_for(
    fabric: DirectFabric, tmp_path: Path, how: str
) -> None:
    text = ENDS.replace("HOW", how)
    code, said = plain(tmp_path, text)
    found, told = warm(fabric, tmp_path, text)
    assert (found, told.replace("why\n", "")) == (code, said)


def test_the_folder_of_the_cloud_is_not_seen(
    fabric: DirectFabric, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "random.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(tmp_path / "start")
    other = DirectFabric(tmp_path / "other", ["a"])
    try:
        show = "import os, random, sys; print(any('start' in p for p in (os.getcwd(), *sys.path)))"
        assert warm(other, tmp_path / "other", show) == (0, "False\n")
    finally:
        other.close()
