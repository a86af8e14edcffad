"""Runs a user's Python script in a warm process, as `python script.py ARGS` would."""

import os
import runpy
import sys
from pathlib import Path


def main() -> None:
    """Run the script that `sys.argv` names after this module, with its arguments."""
    script = Path(sys.argv[1])
    sys.argv = sys.argv[1:]
    sys.path[0] = str(script.resolve().parent)
    if not script.exists():
        sys.stderr.write(f"there is no {script} in {os.getcwd()}; submit it with --code FOLDER\n")
        raise SystemExit(2)
    runpy.run_path(str(script), run_name="__main__")
