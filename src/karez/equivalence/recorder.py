"""Runs a script unchanged under the recording hooks.

Run as `python -m karez.equivalence.recorder FOLDER -- script.py arguments...`; variables in FOLDER
are expanded, so that a job can pass $KAREZ_OUT/record.
"""

import os
import random
import runpy
import sys
import time
from pathlib import Path

import numpy as np
import torch

from karez.equivalence.recording_hooks import Recorder, StepsDone
from karez.equivalence.run_spec import ENVIRONMENT


def _seed_all(seed: int, threads: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    if threads:
        torch.set_num_threads(threads)


def main() -> int:
    """Run the script that the command line names."""
    folder, arguments = Path(os.path.expandvars(sys.argv[1])), sys.argv[3:]
    read = {name: os.environ.get(key, "") for name, key in ENVIRONMENT.items()}  # noqa: TID251 - handed on by `verify`
    rank = os.environ.get("RANK", "0")  # noqa: TID251 - as torchrun says
    folder = folder / f"rank-{rank}"
    folder.mkdir(parents=True, exist_ok=True)
    _seed_all(int(read["seed"] or 0), int(read["threads"] or 0))
    name, _, by = read["fault"].partition("=")
    recorder = Recorder(
        folder=folder,
        steps=int(read["steps"] or 3),
        most=int(read["most"] or 0),
        inside=read["inside"],
        fault=(name, float(by or 0.0)),
    )
    recorder.install()
    sys.argv = arguments
    sys.path[0] = str(Path(arguments[0]).resolve().parent)
    why = "done"
    began = time.perf_counter()
    try:
        runpy.run_path(arguments[0], run_name="__main__")
    except StepsDone:
        why = "enough"
    except SystemExit as left:
        if left.code:
            why = f"exit {left.code}"
            raise
    finally:
        recorder.write(why)
        sys.stderr.write(f"recorded {time.perf_counter() - began:.1f} s\n")
    if name and not recorder.has_spoiled:
        known = ", ".join(dict.fromkeys(recorder.names.values()))
        sys.exit(f"no module called {name!r} was run; there are: {known}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
