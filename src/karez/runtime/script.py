"""Runs a user's Python script in a warm process, as `python script.py ARGS` would."""

import atexit
import os
import sys
import threading
from importlib.machinery import SourceFileLoader
from multiprocessing import process
from types import ModuleType

from karez.core.errors import KarezError


def main() -> None:
    """Run the script that `sys.argv` names after this module, with its arguments."""
    sys.argv = sys.argv[1:]
    path = os.path.abspath(sys.argv[0])
    if not os.path.exists(path):
        sys.stderr.write(
            f"there is no {sys.argv[0]} in {os.getcwd()}; submit it with --code FOLDER\n"
        )
        raise SystemExit(2)
    sys.path.insert(0, os.path.dirname(os.path.realpath(path)))
    vars(process)["ORIGINAL_DIR"] = os.getcwd()  # of processes by "spawn"
    loader = SourceFileLoader("__main__", path)
    module = ModuleType("__main__")
    module.__file__, module.__loader__ = path, loader
    sys.modules["__main__"] = module  # what "spawn" and pickle look into; it stays
    try:
        code = loader.source_to_code(loader.get_data(path), path)
    except SyntaxError as error:
        sys.excepthook(type(error), error, None)
        raise SystemExit(1) from None
    try:
        exec(code, vars(module))  # noqa: S102 - its job
    except SystemExit:
        _finish()
        raise
    except BaseException as error:  # noqa: BLE001 - Python itself tells of all of them
        trace = error.__traceback__ and error.__traceback__.tb_next  # without this function
        sys.excepthook(type(error), error, trace)
        _finish()
        raise SystemExit(error.exit_code if isinstance(error, KarezError) else 1) from None
    _finish()


def _finish() -> None:
    """What the interpreter does at its end, and a fork does not: threads, then `atexit`."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
