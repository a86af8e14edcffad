"""What `karez studio` is asked for, and what it made."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from karez.client.data_sets import job_stem
from karez.core.engines import Task
from karez.core.errors import BadRequest
from karez.core.jobs import Scalar

MODELS: Mapping[Task, str] = {
    Task.GENERATE: "smollm2-135m-instruct",
    Task.CLASSIFY: "all-minilm-l6-v2",
}
"""Task -> the model that is tuned if none is named."""
ROWS: Mapping[Task, int] = {Task.GENERATE: 100, Task.CLASSIFY: 100_000}
"""Task -> held-out rows that are measured on, if nothing is said: labels are named fast."""
VALIDATION = 0.2
"""Share of the rows that a threshold of confidence is chosen on, if nothing else is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudioPlan:
    """What is to be made of a table."""

    path: Path
    name: str
    """Name of the data set and the service; the jobs' names begin with it."""
    task: Task = Task.GENERATE
    """What the service does: generate writes the answer, by the recipe `sft-lora`; classify names
    one of the labels that the rows have, by `train-classifier`."""
    model: str = ""
    """Model to tune, by name or id; one of the catalogue is fetched. Empty: MODELS has it."""
    project: str = "default"
    source: str = ""
    licence: str = ""
    data_settings: Mapping[str, Scalar] = field(default_factory=dict)
    """Of the recipe `prepare-data`."""
    tune_settings: Mapping[str, Scalar] = field(default_factory=dict)
    """Of the recipe `sft-lora` or `train-classifier`."""
    rows: int = 0
    """Held-out rows that both models are measured on, at most; 0: ROWS has it."""
    target_accuracy: float = 0.0
    """Share of the answers that is to be right: the report says how many rows can be answered so.
    A fifth of the rows is kept to choose the threshold by, unless `data_settings` say otherwise."""
    workers: str = "1:2"
    """Workers of the training, as of `karez jobs submit`."""
    each: str = ""
    """What each worker of training and evaluation needs."""
    serve_as: str = ""
    """gguf, which the engine for CPUs loads; hf serves what was tuned, without a conversion, as
    classifiers always are. Empty: gguf where it can be."""
    context: int = 2048
    """Tokens of a prompt and its answer that the service takes."""
    converter: str = ""
    """Wheel of the GGUF converter on the node's disk, to work offline."""
    model_file: str = ""
    """Wheel of the model on the node's disk, to work offline."""

    def __post_init__(self) -> None:
        if self.serve_as not in ("", "gguf", "hf"):
            raise BadRequest(problem=f"a model is served as gguf or hf, not {self.serve_as!r}")
        self._check_task()
        if not 0 <= self.target_accuracy < 1:
            problem = f"a target is a share below 1, such as 0.98, got {self.target_accuracy}"
            raise BadRequest(problem=problem)
        if self.target_accuracy and self.data_settings.get("validation", VALIDATION) == 0:
            raise no_validation(self.path)

    def _check_task(self) -> None:
        if self.task not in MODELS:
            fix = f"Choose {' or '.join(MODELS)}."
            raise BadRequest(problem=f"no model is tuned for the task {self.task}", fix=fix)
        if self.task != Task.CLASSIFY:
            if "epochs" in self.tune_settings:
                raise BadRequest(
                    problem="a model that writes answers is trained for a number of steps",
                    fix="Say steps instead of epochs, or choose the task classify.",
                )
        elif self.serve_as == "gguf":
            raise BadRequest(problem="a classifier is served as hf", fix="Leave serve_as out.")
        elif "steps" in self.tune_settings:
            problem = "a classifier is trained for a number of epochs"
            raise BadRequest(problem=problem, fix="Say epochs instead of steps.")

    @property
    def base(self) -> str:
        """The model to tune."""
        return self.model or MODELS[self.task]

    @property
    def stem(self) -> str:
        """How the names of its jobs begin."""
        return job_stem(self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudioResult:
    """What was made."""

    data: str
    """Artifact ids."""
    base: str
    model: str
    report: str
    served: str
    service: str
    """Id of the service."""
    measured: Mapping[str, Any]
    """The evaluation's report: loss, accuracy with its interval and F1 of base and tuned model."""


def no_validation(path: Path) -> BadRequest:
    """The error of a target that no rows are kept for."""
    return BadRequest(
        problem=f"a target of accuracy needs validation rows, and {path} is to give none",
        fix="Leave validation out of the settings, or put a validation.jsonl beside train.jsonl.",
    )
