"""Tables as people have them, and the recipe that reads them, run in this process."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from karez.core import environment
from karez.studio.recipes.prepare_data import main

Prepare = Callable[..., "Made"]
WORDS = ["red", "blue", "green", "gold", "pink", "grey", "teal", "plum", "rose", "lime"]


class Made:
    """What the recipe made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "data"
        self.card: dict[str, Any] = json.loads((self.folder / "karez.json").read_text())
        self.report: dict[str, Any] = json.loads((self.folder / "report.json").read_text())

    def rows(self, part: str) -> list[list[dict[str, str]]]:
        lines = (self.folder / f"{part}.jsonl").read_bytes().split(b"\n")
        return [json.loads(line)["messages"] for line in lines if line]

    def pairs(self, *parts: str) -> set[tuple[str, str]]:
        rows = [row for part in parts for row in self.rows(part)]
        return {(row[-2]["content"], row[-1]["content"]) for row in rows}

    def all_pairs(self) -> set[tuple[str, str]]:
        return self.pairs("train", "held_out")


def preparation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepare:
    """Run the recipe on files (name -> bytes) with settings."""

    def prepare(files: dict[str, bytes], **settings: object) -> Made:
        folder = tmp_path / "inputs" / "tables"
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        monkeypatch.setenv(environment.INPUTS, str(tmp_path / "inputs"))
        monkeypatch.setenv(environment.OUT, str(tmp_path / "out"))
        monkeypatch.setenv(environment.SETTINGS, json.dumps({"name": "mine", **settings}))
        main()
        return Made(tmp_path / "out")

    return prepare


def questions(count: int) -> list[tuple[str, str]]:
    """Pairs of a question and one of three labels; no two questions are near."""
    return [
        (f"{WORDS[n % 10]} {WORDS[n // 10 % 10]} number {n * 7919}", f"label{n % 3}")
        for n in range(count)
    ]


def as_csv(pairs: list[tuple[str, str]], head: str = "text,label", end: str = "\n") -> bytes:
    rows = [head, *(f'"{text}",{label}' for text, label in pairs)]
    return (end.join(rows) + end).encode()
