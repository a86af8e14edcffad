"""Tries architectures one by one: `python -m ... TYPE...`, a JSON line for each.

Without a type it reads them from standard input, one a line. With `--folder` it tries the
architecture of a model's folder.
"""

import argparse
import json
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from karez.studio.architectures.isolated import try_folder, try_type
from karez.studio.architectures.model_types import model_types, type_of
from karez.studio.architectures.rows import Row, as_tree

_PACKAGES = ("transformers", "torch", "peft")


def main(words: Sequence[str] | None = None) -> None:
    """Try architectures, and print a first line of versions, then a row for each."""
    parser = argparse.ArgumentParser(prog="run_matrix")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("types", nargs="*")
    options = parser.parse_args(words)
    torch.set_num_threads(1)  # threads do not survive a fork
    warnings.filterwarnings("ignore")  # hundreds of models warn
    logging.disable(logging.WARNING)
    for tree in _rows(options):
        sys.stdout.write(json.dumps(tree) + "\n")
        sys.stdout.flush()


def _rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    known = model_types()
    yield {"versions": {name: version(name) for name in _PACKAGES}, "known": list(known)}
    if options.folder is not None:
        yield as_tree(_row_of_folder(options.folder))
        return
    for name in options.types or sys.stdin:
        yield as_tree(try_type(known[name.strip()]))


def _row_of_folder(folder: Path) -> Row:
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    kind = type_of(config)
    if kind is None:
        raise SystemExit(f"no class for the model type {config.model_type}")
    return try_folder(kind, config, folder)


if __name__ == "__main__":
    main()
