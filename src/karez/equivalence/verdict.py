"""The result of a comparison: each difference, and the verdict on all of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Difference of one module, or of one parameter, in one step."""

    step: int
    kind: str
    name: str
    type: str
    is_leaf: bool
    error: float
    """Error of the results, relative to the largest."""
    limit: float
    input_error: float
    input_limit: float
    problem: str = ""
    """A shape or a type that differs, or a value that is not finite."""

    @property
    def is_off(self) -> bool:
        """Whether the results differ by more than the limit."""
        return bool(self.problem) or self.error > self.limit

    @property
    def begins(self) -> bool:
        """Whether the results are off although the inputs agree."""
        return self.is_off and self.input_error <= self.input_limit


@dataclass(slots=True, kw_only=True)
class Verdict:
    """The comparison as a whole."""

    differences: list[Difference] = field(default_factory=list)
    first: Difference | None = None
    """The first module whose inputs agree and whose results do not."""
    unmatched: list[str] = field(default_factory=list)
    """Modules that only one of the runs has."""
    settings: list[str] = field(default_factory=list)
    """Settings of modules and optimizers that differ, a line each."""
    loss_error: float = 0.0
    loss_limit: float = 0.0
    losses: tuple[Sequence[float], Sequence[float]] = ((), ())
    needs_losses: bool = True
    """Whether a run without losses shows nothing."""
    worst: Difference | None = None
    still: int = 0
    """Elements of parameters whose gradient was always rounding; they are not compared."""
    weights: int = 0

    @property
    def is_lossless(self) -> bool:
        """Whether no difference exceeds its limit, and no setting differs."""
        is_off = any(difference.is_off for difference in self.differences)
        is_off = is_off or bool(self.unmatched) or bool(self.settings)
        was_seen = bool(self.losses[0]) or (not self.needs_losses and bool(self.differences))
        return not is_off and self.loss_error <= self.loss_limit and was_seen
