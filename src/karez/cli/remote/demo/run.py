"""The record of one demo: what it printed, ran and measured."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.rule import Rule

from karez.core.api_models import ReceiptView
from karez.core.errors import Failed

MODEL, DATA, JOB = "smollm2-135m-instruct", "intent-router", "router-tune"


@dataclass(slots=True, kw_only=True)
class DemoRun:
    """State of a running demo; the closing page is made from it."""

    console: Console
    home: Path
    env: dict[str, str]
    is_emulated: bool = False
    """Whether training and evaluation ask for emulated NPUs."""
    commands: list[str] = field(default_factory=list)
    started_at: float = 0.0
    ready_s: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    receipts: list[ReceiptView] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, highlight=False, markup=False)

    def head(self, number: int, text: str) -> None:
        """Print the headline of a step."""
        self.console.print(Rule(f"[bold]{number}. {text}[/bold]", align="left", style="dim"))

    def run(self, *words: str) -> None:
        """Print and run a karez command as a user would. Raises Failed."""
        line = "karez " + " ".join(f"'{w}'" if " " in w else w for w in words)
        self.commands.append(line)
        self.say(f"$ {line}")
        done = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-P", "-m", "karez.cli.main", *words],
            env={**os.environ, **self.env},  # noqa: TID251 - the command inherits this environment
            check=False,
        )
        if done.returncode:
            raise Failed(
                noun="job", name=words[0], reason=f"`{line}` ended with {done.returncode}."
            )
