"""What a gateway has done since it started, as Prometheus text. Pure."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from karez.core.guardrails import Guardrail
from karez.serving.token_usage import TokenUsage

BOUNDS_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24)
"""Bounds of times to first token. Source: OpenTelemetry's conventions for generative AI."""


@dataclass(slots=True)
class Histogram:
    """Seconds, counted by bounds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    total_s: float = 0.0

    def append(self, seconds: float) -> None:
        """Take in a duration."""
        self.counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.total_s += seconds

    def lines(self, name: str) -> list[str]:
        """The lines of a Prometheus histogram."""
        lines, sum_ = [f"# TYPE {name} histogram"], 0
        for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), self.counts, strict=True):
            sum_ += count
            lines.append(f'{name}_bucket{{le="{bound}"}} {sum_}')
        return [*lines, f"{name}_sum {self.total_s:.6f}", f"{name}_count {sum_}"]


@dataclass(slots=True)
class RelayCounts:
    """Counts of requests, tokens and streams."""

    statuses: Counter[int] = field(default_factory=Counter)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    takeovers: int = 0
    """Times that a replica went on with the stream of another."""
    broken: int = 0
    """Streams that no replica could go on with."""
    hedges: int = 0
    """Times that another replica was asked too."""
    hedges_won: int = 0
    """Times that it was first to answer."""
    fallbacks: int = 0
    """Times that another model was asked instead."""
    guarded: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """(project, guardrail, action) -> times that it found something."""
    first_s: Histogram = field(default_factory=Histogram)

    def saw(self, status: int, usage: TokenUsage) -> None:
        """Take in a request that has ended."""
        self.statuses[status] += 1
        self.prompt_tokens += usage.prompt
        self.completion_tokens += usage.completion

    def found(self, project: str, guardrails: Sequence[Guardrail]) -> None:
        """Take in what guardrails have found, each as often as it did."""
        for one in guardrails:
            self.guarded[project, one.name, str(one.action)] += 1

    def metrics(self, inflight: int, waiting: int) -> bytes:
        """All counts as Prometheus text."""
        total = sum(self.statuses.values())
        lines = [
            "# TYPE karez_gateway_requests_total counter",
            f"karez_gateway_requests_total {total}",
            "# TYPE karez_gateway_answers_total counter",
            *(
                f'karez_gateway_answers_total{{status="{status}"}} {count}'
                for status, count in sorted(self.statuses.items())
            ),
            "# TYPE karez_gateway_tokens_total counter",
            f'karez_gateway_tokens_total{{type="input"}} {self.prompt_tokens}',
            f'karez_gateway_tokens_total{{type="output"}} {self.completion_tokens}',
            "# TYPE karez_gateway_stream_takeovers_total counter",
            f"karez_gateway_stream_takeovers_total {self.takeovers}",
            "# TYPE karez_gateway_streams_broken_total counter",
            f"karez_gateway_streams_broken_total {self.broken}",
            "# TYPE karez_gateway_hedges_total counter",
            f"karez_gateway_hedges_total {self.hedges}",
            "# TYPE karez_gateway_hedges_won_total counter",
            f"karez_gateway_hedges_won_total {self.hedges_won}",
            "# TYPE karez_gateway_fallbacks_total counter",
            f"karez_gateway_fallbacks_total {self.fallbacks}",
            "# TYPE karez_gateway_guardrail_matches_total counter",
            *(
                f'karez_gateway_guardrail_matches_total{{project="{project}",guardrail="{name}",'
                f'action="{action}"}} {count}'
                for (project, name, action), count in sorted(self.guarded.items())
            ),
            "# TYPE karez_gateway_inflight gauge",
            f"karez_gateway_inflight {inflight}",
            "# TYPE karez_gateway_waiting gauge",
            f"karez_gateway_waiting {waiting}",
            *self.first_s.lines("gen_ai_server_time_to_first_token"),
        ]
        return ("\n".join(lines) + "\n").encode()
