"""GGUF for the edge: `karez migrate checkpoint MODEL out.gguf`, by the recipe that jobs use."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from karez.checkpoints.convert import Order, convert
from karez.client.address import state_folder
from karez.core import environment
from karez.core.errors import BadRequest, MissingPart, StorageFull

_LEFT_OUT = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".index.json")


def export(order: Order, like: Path | None, outtype: str, converter: str) -> dict[str, Any]:
    """Convert with llama.cpp's own converter; kept only if a golden prompt is answered alike.

    Args:
        order: From where to where; names change by its rules first.
        like: A Hugging Face folder with the configuration and the tokenizer, where the source is
            no such folder itself.
        outtype: f32, f16, bf16 or q8_0.
        converter: The converter's wheel, to work offline.

    Raises:
        BadRequest: Something is missing, or the result does not answer as its source does.
    """
    source = order.source
    about = like or source
    if not (about / "config.json").is_file():
        raise BadRequest(
            problem=f"{about} has no config.json and tokenizer, which GGUF carries inside",
            fix="Name a Hugging Face folder of the same model with --like.",
        )
    with tempfile.TemporaryDirectory(prefix="kz-") as name:
        work = Path(name)
        model = work / "in" / "model"
        if like is None and order.rules is None and order.kinds is None:
            model.parent.mkdir()
            model.symlink_to(source.resolve())
            done: dict[str, Any] = {"renamed": {}, "dropped": [], "unmatched": [], "left_out": []}
        else:
            done = convert(
                Order(
                    source=source,
                    target=model,
                    to="safetensors",
                    rules=order.rules,
                    kinds=order.kinds,
                )
            )
            for path in about.iterdir():
                if path.is_file() and not path.name.endswith(_LEFT_OUT):
                    shutil.copy(path, model / path.name)
        _run(work, outtype, converter)
        made = next((work / "out" / "gguf").glob("*.gguf"))
        facts = json.loads((made.parent / "karez.json").read_text())["facts"]
        half = order.target.with_name(f".{order.target.name}.part")
        try:
            order.target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(made, half)
            half.replace(order.target)
        except OSError as error:
            with suppress(OSError):
                half.unlink(missing_ok=True)
            wanted = made.stat().st_size
            raise StorageFull(path=str(order.target), wanted_bytes=wanted) from error
    return {**done, **facts, "files": [str(order.target)]}


def _recipe() -> EntryPoint:
    """The recipe that jobs use. Raises MissingPart where it is not installed."""
    for point in entry_points(group="karez.recipes"):
        if point.name == "convert-gguf":
            return point
    raise MissingPart(
        part="the recipe convert-gguf", needed_for="GGUF", install="pip install 'karez[node]'"
    )


def _run(work: Path, outtype: str, converter: str) -> None:
    env = {
        **os.environ,  # noqa: TID251 - handed on
        environment.INPUTS: str(work / "in"),
        environment.OUT: str(work / "out"),
        environment.CACHE: str(state_folder() / "cache"),
        environment.SETTINGS: json.dumps({"outtype": outtype, "converter": converter}),
    }
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", f"from {_recipe().module} import main; main()"],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["no reason"]
        raise BadRequest(
            problem=f"no GGUF was made: {said[-1].partition(': ')[2] or said[-1]}",
            fix="Packages that are missing are in karez[node]; offline, name the converter's wheel "
            "with --converter.",
        )
