"""The model types of the installed transformers that have a class to try."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import transformers
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

_FAMILIES = (
    ("seq2seq", "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES"),
    ("speech-seq2seq", "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES"),
    ("image-text", "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES"),
    ("multimodal", "MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES"),
    ("masked-lm", "MODEL_FOR_MASKED_LM_MAPPING_NAMES"),
    ("causal-lm", "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"),
    ("ctc", "MODEL_FOR_CTC_MAPPING_NAMES"),
    ("sequence-classification", "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES"),
    ("image-classification", "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES"),
    ("object-detection", "MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES"),
    ("segmentation", "MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES"),
    ("segmentation", "MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES"),
    ("depth", "MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES"),
    ("video-classification", "MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES"),
    ("audio-classification", "MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES"),
    ("text-to-audio", "MODEL_FOR_TEXT_TO_WAVEFORM_MAPPING_NAMES"),
    ("text-to-audio", "MODEL_FOR_TEXT_TO_SPECTROGRAM_MAPPING_NAMES"),
    ("zero-shot-image", "MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES"),
    ("mask-generation", "MODEL_FOR_MASK_GENERATION_MAPPING_NAMES"),
    ("base", "MODEL_MAPPING_NAMES"),
)
"""Family -> the table of transformers that has its classes. A type counts where it first occurs."""
_BY_CONFIG = ("encoder-decoder", "speech-encoder-decoder", "vision-encoder-decoder")
"""Types whose class takes the configurations of two others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelType:
    """A model type, and the class that is tried for it."""

    name: str
    family: str
    architecture: str

    def classes(self) -> tuple[Any, Any]:
        """Return the classes of its configuration and its model. Raises what imports raise."""
        model = getattr(transformers, self.architecture)
        own = getattr(model, "config_class", None)
        config = own if own is not None and self.name not in _BY_CONFIG else None
        return config or CONFIG_MAPPING[self.name], model


def model_types() -> dict[str, ModelType]:
    """Return all model types by name, those of language models first."""
    found: dict[str, ModelType] = {}
    for family, name, architecture in _entries():
        if name not in found:
            found[name] = ModelType(name=name, family=family, architecture=architecture)
    order = {"causal-lm": 0, "seq2seq": 1, "image-text": 2, "masked-lm": 3}
    ranked = sorted(found.values(), key=lambda one: (order.get(one.family, 9), one.name))
    return {one.name: one for one in ranked}


def type_of(config: Any) -> ModelType | None:
    """Return the type of a model's configuration, with the class that the model was saved from."""
    own = model_types().get(config.model_type)
    saved = next(iter(config.architectures or ()), "")
    if own is None or not hasattr(transformers, saved):
        return own
    family = next((family for family, _, name in _entries() if name == saved), "base")
    return ModelType(name=own.name, family=family, architecture=saved)


def _entries() -> Iterator[tuple[str, str, str]]:
    for family, table in _FAMILIES:
        for name, architecture in getattr(modeling_auto, table).items():
            first = architecture if isinstance(architecture, str) else architecture[0]
            yield family, name, first
