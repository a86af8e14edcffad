"""What the files of a model are, by their names. Pure."""

from collections.abc import Iterable, Mapping
from typing import Final

_ADAPTER: Final = "adapter_config.json"
_NAMES: Final[Mapping[str, str]] = {
    _ADAPTER: "peft",
    "openvino_model.xml": "openvino",
    "openvino_language_model.xml": "openvino",
    "config.json": "hf",
}
_ENDINGS: Final[Mapping[str, str]] = {".gguf": "gguf", ".safetensors": "hf"}


def model_format(paths: Iterable[str]) -> str:
    """The format of a model of these files, as engines name it; empty: it is not known.

    An adapter or an OpenVINO model has files of a Hugging Face folder beside its own.
    """
    known = set(paths)
    for name, found in _NAMES.items():
        if name in known:
            return found
    for ending, found in _ENDINGS.items():
        if any(path.endswith(ending) for path in known):
            return found
    return ""
