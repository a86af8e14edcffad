"""Inputs that a tiny model may take: several guesses, of which the first that works is used."""

import contextlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from transformers import PreTrainedConfig

ROWS = 2
_LENGTH = 16
_GRID = 4
"""Patches on each side of a picture."""
_FIRST_TOKEN, _LAST_TOKEN = 10, 290
"""Below and above are special tokens of the tiny vocabularies."""
_OF_TOKENS = frozenset(
    ("causal-lm", "masked-lm", "seq2seq", "speech-seq2seq", "image-text", "multimodal")
)
"""Families whose labels are tokens."""
Inputs = Mapping[str, torch.Tensor]


def candidates(model: Any, family: str) -> Iterator[dict[str, torch.Tensor]]:
    """Yield inputs, the likeliest first."""
    guess = _Guess(model, family)
    yield from guess.texts()
    yield from guess.patches()
    yield from guess.pictures()
    yield from guess.films()
    yield from guess.sounds()
    yield from guess.series()
    with contextlib.suppress(Exception):  # whatever a class of transformers raises: one guess less
        yield dict(model.dummy_inputs)
    yield {getattr(model, "main_input_name", "input_ids"): guess.ids_BL}


def labels_for(family: str, inputs: Inputs, model: Any) -> dict[str, torch.Tensor]:
    """Return labels for a model's own loss; none where it takes none that fit."""
    if "labels" not in inspect.signature(model.forward).parameters:
        return {}
    if family.endswith("-classification"):
        return {"labels": torch.tensor([0, 1])}
    if family == "ctc":
        return {"labels": torch.randint(1, 20, (ROWS, 4))}
    if family in (
        "causal-lm",
        "masked-lm",
        "seq2seq",
        "speech-seq2seq",
        "image-text",
        "multimodal",
    ):
        tokens = inputs.get("decoder_input_ids", inputs.get("input_ids"))
        return {} if tokens is None else {"labels": tokens}
    return {}


class _Guess:
    """What is known of a model's inputs, and random ones made of it."""

    def __init__(self, model: Any, family: str) -> None:
        self.config = config = model.config
        self.takes = set(inspect.signature(model.forward).parameters)
        self.main = getattr(model, "main_input_name", "input_ids")
        self.family = family
        self.vision = _part(config, ("vision_config", "vision_encoder_config", "encoder"))
        self.random = torch.Generator().manual_seed(0)
        text = _text_part(config)
        vocabulary = _count(text, "vocab_size", "n_token", default=_count(config, "vocab_size"))
        last = max(min(vocabulary or 100, _LAST_TOKEN) - 1, _FIRST_TOKEN + 2)
        self.ids_BL = torch.randint(_FIRST_TOKEN, last, (ROWS, _LENGTH), generator=self.random)
        self.has_decoder = "decoder_input_ids" in self.takes and (
            bool(getattr(config, "is_encoder_decoder", False))
            or family in ("speech-seq2seq", "seq2seq")
        )
        self.decoder = {"decoder_input_ids": self._half()} if self.has_decoder else {}

    def texts(self) -> Iterator[dict[str, torch.Tensor]]:
        is_text = self.main == "input_ids"
        if not is_text and not (
            "input_ids" in self.takes and self.family in ("image-text", "multimodal")
        ):
            return
        masked = {"input_ids": self.ids_BL}
        if "attention_mask" in self.takes:
            masked["attention_mask"] = torch.ones_like(self.ids_BL)
        if "bbox" in self.takes:
            yield {**masked, "bbox": torch.zeros(ROWS, _LENGTH, 4, dtype=torch.long)}
        yield {**masked, **self.decoder}
        yield {"input_ids": self.ids_BL, **self.decoder}
        if "pixel_values" in self.takes:
            for size in dict.fromkeys((self._picture_size(), 32, 64)):
                yield {**masked, "pixel_values": self._picture(size)}
        if is_text and not self.has_decoder and "decoder_input_ids" in self.takes:
            yield {**masked, "decoder_input_ids": self._half()}

    def patches(self) -> Iterator[dict[str, torch.Tensor]]:
        """Pictures that were cut into patches before, with the grid of each."""
        grid = next((name for name in ("grid_thw", "image_grid_thw") if name in self.takes), "")
        if not grid or "input_ids" in self.takes:
            return
        side = _count(self.vision, "patch_size", default=8)
        frames = _count(self.vision, "temporal_patch_size", default=1)
        width = _count(self.vision, "num_channels", "in_channels", "in_chans", default=3)
        place_B3 = torch.tensor([[1, _GRID, _GRID]] * ROWS)
        for shape in ((width * frames * side * side,), (width, side, side)):
            flat = torch.randn(ROWS * _GRID * _GRID, *shape, generator=self.random)
            for name in ("hidden_states", "pixel_values"):
                if name in self.takes:
                    yield {name: flat, grid: place_B3}

    def pictures(self) -> Iterator[dict[str, torch.Tensor]]:
        if self.main not in ("pixel_values", "images") and "pixel_values" not in self.takes:
            return
        name = "images" if self.main == "images" else "pixel_values"
        guesses = tuple(dict.fromkeys((self._picture_size(), 32, 64, 128, 224)))
        for size in guesses:
            yield {name: self._picture(size), **self.decoder}
            if "input_ids" in self.takes:
                mask = torch.ones_like(self.ids_BL)
                yield {name: self._picture(size), "input_ids": self.ids_BL, "attention_mask": mask}
        frames = _count(self.config, "num_frames", default=4)
        for size in guesses[:3]:
            yield {name: self._picture(size, (frames,))}

    def films(self) -> Iterator[dict[str, torch.Tensor]]:
        if self.main == "pixel_values_videos" or "pixel_values_videos" in self.takes:
            frames = _count(self.config, "frames_per_clip", "num_frames", default=4)
            own = _count(self.config, "crop_size", "image_size", default=32)
            for size in dict.fromkeys((own, 32, 64)):
                yield {"pixel_values_videos": self._picture(size, (frames,))}

    def sounds(self) -> Iterator[dict[str, torch.Tensor]]:
        if "input_features" in self.takes:
            yield from self._spectrograms()
        if "input_values" in self.takes:
            bands = _count(self.config, "num_mel_bins", default=16)
            steps = _count(self.config, "max_length", default=128)
            for shape in ((8000,), (1, 8000), (1, 2000), (steps, bands), (32, bands)):
                yield {"input_values": self._random(shape), **self.decoder}

    def series(self) -> Iterator[dict[str, torch.Tensor]]:
        if "past_values" in self.takes:
            steps = _count(self.config, "context_length", default=32)
            channels = _count(self.config, "num_input_channels", default=1)
            yield {"past_values": self._random((steps, channels))}
            yield {"past_values": self._random((steps,))}
            frequency = torch.zeros(ROWS, dtype=torch.long)
            yield {"past_values": self._random((steps,)), "freq": frequency}

    def _spectrograms(self) -> Iterator[dict[str, torch.Tensor]]:
        audio = _part(_part(self.config, ("audio_config",)), ("encoder_config",))
        bands = _count(
            audio,
            "num_mel_bins",
            "input_feat_per_channel",
            "feature_projection_input_dim",
            "feature_size",
            "input_dim",
            default=16,
        )
        steps = 2 * _count(audio, "max_source_positions", default=64)
        for shape in ((bands, steps), (steps, bands), (bands, 128), (128, bands), (1, 128, bands)):
            features = self._random(shape)
            yield {"input_features": features, **self.decoder}
            if "attention_mask" in self.takes:
                mask = torch.ones(ROWS, shape[0], dtype=torch.long)
                yield {"input_features": features, **self.decoder, "attention_mask": mask}
            if "input_ids" in self.takes:
                yield {"input_ids": self.ids_BL, "input_features": features}

    def _half(self) -> torch.Tensor:
        return self.ids_BL[:, : _LENGTH // 2].contiguous()

    def _picture_size(self) -> int:
        return _count(self.vision, "image_size", default=32)

    def _picture(self, size: int, before: tuple[int, ...] = ()) -> torch.Tensor:
        channels = _count(self.vision, "num_channels", "in_channels", "in_chans", default=3)
        return self._random((*before, channels, size, size))

    def _random(self, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.randn(ROWS, *shape, generator=self.random)


def _part(config: Any, names: tuple[str, ...]) -> Any:
    for name in names:
        part = getattr(config, name, None)
        if isinstance(part, PreTrainedConfig):
            return part
    return config


def _text_part(config: Any) -> Any:
    names = ("text_config", "llm_config", "language_config", "decoder", "thinker_config")
    part = _part(config, names)
    return config if part is config else _text_part(part)


def _count(config: Any, *names: str, default: int = 0) -> int:
    for name in names:
        value = getattr(config, name, None)
        if isinstance(value, list | tuple) and value:
            value = value[0]
        if isinstance(value, int) and value > 0:
            return value
    return default
