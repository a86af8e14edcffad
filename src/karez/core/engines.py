"""Engines: what the model servers can do, and what one is started with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

from karez.core.devices import DeviceKind
from karez.core.names import check_name
from karez.core.validation import FORBID

AUTO = "auto"
"""Engine of a service that leaves the choice to the fit check."""


TOKENS = "karez_tokens"
"""Field by which an event of a stream tells how many tokens it stands for; without it: one."""


class Task(StrEnum):
    """What a service answers."""

    GENERATE = "generate"
    """Text after text: chat and completions."""
    EMBED = "embed"
    """A vector for each text."""
    RERANK = "rerank"
    """How well each document answers a query."""
    CLASSIFY = "classify"
    """The label of each text."""


class AdapterUse(StrEnum):
    """How a request says which adapter answers it."""

    NONE = "none"
    """The engine serves no adapters."""
    NAME = "name"
    """As its model."""
    NUMBER = "number"
    """By the numbers and scales of the adapters, in the field `lora`."""


class Preference(StrEnum):
    """What counts where several engines load a model."""

    MEMORY = "memory"
    """Little memory."""
    THROUGHPUT = "throughput"
    """Many tokens a second for many callers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A LoRA adapter that is served beside its base, as a model of its own name."""

    __pydantic_config__: ClassVar[Any] = FORBID

    name: str
    model: str
    """Artifact name or id of the adapter."""

    def __post_init__(self) -> None:
        check_name(self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What an engine can do."""

    formats: tuple[str, ...]
    """Artifact formats that it loads."""
    architectures: tuple[str, ...] = ()
    """Names of the architectures that it loads of these formats; empty: of all."""
    kinds: tuple[DeviceKind, ...]
    """Kinds of device on which it computes."""
    tasks: tuple[Task, ...]
    modules: tuple[str, ...] = ()
    """Python modules that a node needs for it."""
    adapters: AdapterUse = AdapterUse.NONE
    adapter_formats: tuple[str, ...] = ()
    has_schemas: bool = False
    """Whether it keeps to a JSON schema that a request gives."""
    forces_tools: bool = False
    """Whether its answer is a call of a tool where a request insists on one."""
    program_bytes: int = 0
    """Memory of the program without a model."""
    loaded_bytes: Mapping[DeviceKind, int] = field(default_factory=dict)
    """Kind -> bytes of a weight and of a number of the KV cache once loaded; a kind that is not
    here: weights as in the file, and 2 bytes in the cache."""
    has_mask: bool = False
    """Whether each batch has a mask over all tokens of the KV cache."""
    batch_tokens: int = 512
    """Most tokens that are computed at once, on a CPU."""
    speed: float = 1.0
    """Tokens a second for 8 callers at once on a CPU, relative to the other engines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLaunch:
    """What an engine is started with."""

    alias: str
    """The model's name in requests."""
    task: Task = Task.GENERATE
    model_file: str = ""
    """Name of the file of weights; empty: the whole folder is the model."""
    tokens: int
    """Context of one request."""
    parallel: int
    """Requests that are answered at once."""
    adapters: tuple[str, ...] = ()
    """Names of the adapters, in the order of their numbers."""


def adapter_folder(number: int) -> str:
    """Folder of an adapter below a process's inputs."""
    return f"adapter-{number}"
