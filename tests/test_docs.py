"""What README and docs show is what there is: code compiles or runs, commands parse, links lead."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

from karez.cli.main import app
from karez.core.jobfile import parse_job

ROOT = Path(__file__).parent.parent
PAPERS = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "changes").glob("*.md")]
)
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^ *```$", re.M | re.S)
RUN = re.compile(r"<!-- run -->\s*\Z")
"""Stands before a Python block that runs by itself, without a cloud and without torch."""
PLACEHOLDERS = {"...", "|"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block of a paper."""

    where: str
    language: str
    text: str
    runs: bool


def blocks() -> Iterator[Block]:
    for paper in PAPERS:
        text = paper.read_text()
        for found in FENCE.finditer(text):
            before = text[: found.start()]
            indent = found["indent"]
            lines = [line.removeprefix(indent) for line in found["text"].splitlines()]
            yield Block(
                where=f"{paper.relative_to(ROOT)}:{before.count(chr(10)) + 1}",
                language=found["language"],
                text="\n".join(lines) + "\n",
                runs=bool(RUN.search(before)),
            )


def of(*languages: str) -> list[Any]:
    return [pytest.param(b, id=b.where) for b in blocks() if b.language in languages]


def commands() -> Iterator[tuple[str, str]]:
    """Each `karez ...` of a block of shell, without prompt and comment, and where it stands."""
    for block in blocks():
        if block.language not in ("", "sh"):
            continue
        text = block.text.replace("\\\n", " ")
        for line in text.splitlines():
            for part in re.split(r"&&|;|\s\|\s", line.strip().removeprefix("$ ")):
                if part.strip().startswith("karez "):
                    yield block.where, part.strip()


def mentions() -> Iterator[tuple[str, str]]:
    """Each `karez ...` in a sentence, where values may be left out or stand for others.

    Errors name commands too: those of the sources count.
    """
    for file in sorted((ROOT / "src").rglob("*.py")):
        for said in re.findall(r"`(karez [^`]+)`", file.read_text()):
            if not said.startswith("karez {"):  # an old name, and its new one
                yield str(file.relative_to(ROOT)), re.sub(r"\{[^}]*\}", "NAME", said)
    for paper in PAPERS:
        text = FENCE.sub("", paper.read_text())
        for said in re.findall(r"`(karez [^`]+)`", text):
            yield str(paper.relative_to(ROOT)), " ".join(said.split())


def parse(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the real parser read a command line, down to the last option; nothing is carried out."""
    monkeypatch.setattr(sys, "argv", ["karez", *words])
    command: Any = typer.main.get_command(app)
    context = command.make_context("karez", list(words))
    while hasattr(command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        if not rest and command.invoke_without_command:
            return
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)


def options_of(words: list[str], monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """All options of the command that the words begin with; what follows are its values."""
    monkeypatch.setattr(sys, "argv", ["karez", *words])
    command: Any = typer.main.get_command(app)
    context = command.make_context("karez", [], resilient_parsing=True)
    context.resilient_parsing = False
    known: set[str] = {"--help", "-h"}
    for word in words:
        known |= {option for parameter in command.params for option in parameter.opts}
        known |= {option for parameter in command.params for option in parameter.secondary_opts}
        if not hasattr(command, "get_command") or word.startswith("-"):
            break
        below = command.get_command(context, word)
        assert below is not None or word.isupper() or word in PLACEHOLDERS, f"no command {word!r}"
        if below is None:
            break
        command = below
    return known | {option for parameter in command.params for option in parameter.opts}


@pytest.mark.parametrize("block", of("python"))
def test_python_compiles(block: Block) -> None:
    compile(block.text, block.where, "exec")


@pytest.mark.parametrize("block", [b for b in of("python") if b.values[0].runs])
def test_python_that_is_marked_runs(block: Block, tmp_path: Path) -> None:
    (tmp_path / "inputs" / "data").mkdir(parents=True)
    (tmp_path / "inputs" / "data" / "train.jsonl").write_text('{"a": 1}\n{"a": 2}\n')
    env = {
        **os.environ,
        "KAREZ_INPUTS": str(tmp_path / "inputs"),
        "KAREZ_OUT": str(tmp_path / "out"),
        "KAREZ_HOME": str(tmp_path / "home"),
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block.text],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for file in (tmp_path / "out").glob("*/lines.json"):
        assert json.loads(file.read_text()) == {"lines": 2}


@pytest.mark.parametrize("block", of("toml"))
def test_a_table_that_describes_a_job_is_read_as_one(block: Block) -> None:
    table = tomllib.loads(block.text)
    if {"gang", "recipe", "command", "kind"} & set(table):
        head = "".join(
            f"{key} = {json.dumps(value)}\n"
            for key, value in {"name": "shown", "command": ["true"]}.items()
            if key not in table
        )
        parse_job(head + block.text)


@pytest.mark.parametrize("file", sorted((ROOT / "examples").glob("*.toml")), ids=lambda f: f.name)
def test_every_example_is_a_job(file: Path) -> None:
    assert parse_job(file.read_text()).name == file.stem


@pytest.mark.parametrize(("where", "line"), sorted(set(commands())), ids=lambda x: x)
def test_a_command_line_is_one_that_the_parser_takes(
    where: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = shlex.split(line.partition(" > ")[0], comments=True)
    parse(words[1:], monkeypatch)


@pytest.mark.parametrize("line", ["jobs lst", "jobs list --jsn", "simulate packing --policy f|g"])
def test_a_command_line_that_is_wrong_is_found(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Exception, match=r"No such|is not one of"):
        parse(line.split(), monkeypatch)


@pytest.mark.parametrize(("where", "line"), sorted(set(mentions())), ids=lambda x: x)
def test_a_command_in_a_sentence_has_a_real_name_and_real_options(
    where: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = shlex.split(line.partition(" -- ")[0])[1:]
    known = options_of(words, monkeypatch)
    for word in words:
        if re.fullmatch(r"--?[a-z][a-z-]*(=.*)?", word):
            assert word.partition("=")[0] in known, f"{where}: {line!r} has no option {word}"


def test_every_target_of_make_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for paper in PAPERS:
        text = paper.read_text()
        named = re.findall(r"`make ([a-z-]+)", text) + re.findall(r"^ *make ([a-z-]+)", text, re.M)
        assert set(named) <= targets, f"{paper.name}: {set(named) - targets}"


@pytest.mark.parametrize("paper", PAPERS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(paper: Path) -> None:
    text = FENCE.sub("", paper.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = paper.parent / name if name else paper
        assert file.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.+)$", file.read_text(), re.M)
            slugs = {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}
            assert anchor in slugs, target


BOLD = re.compile(r"\*\*([A-Za-z][^*]*?)\.?\*\*")


def glossary_terms() -> set[str]:
    rows = (ROOT / "docs" / "glossary.md").read_text().splitlines()
    return {
        term.lower()
        for row in rows
        if row.startswith("| **")
        for term in BOLD.findall(row.split("|")[1])
    }


def test_the_glossary_has_sixty_terms_and_their_equivalents() -> None:
    rows = (ROOT / "docs" / "glossary.md").read_text().splitlines()
    assert len(glossary_terms()) >= 60
    for row in rows:
        if row.startswith("| **"):
            assert all(cell.strip() for cell in row.strip("|").split("|")), row


@pytest.mark.parametrize(
    "paper", sorted((ROOT / "docs").glob("*.md")), ids=lambda paper: paper.name
)
def test_a_term_in_bold_type_is_in_the_glossary(paper: Path) -> None:
    known = glossary_terms()
    text = FENCE.sub("", paper.read_text())
    for term in BOLD.findall(text):
        single = term.lower()
        assert single in known or single.removesuffix("s") in known, f"{paper.name}: {term}"


@pytest.mark.parametrize("paper", ["architecture.md", "contributing/README.md"])
def test_every_file_that_is_named_exists(paper: str) -> None:
    text = (ROOT / "docs" / paper).read_text()
    for name in re.findall(r"`([\w./]+/[\w./]+\.(?:py|txt|toml|md))`", text):
        places = (ROOT / name, ROOT / "src" / "karez" / name, ROOT / "tests" / name)
        assert any(place.exists() for place in places), name
    for folder in re.findall(
        r"`((?:src|tests|docs|scheduling|migration|server|cli)/[\w/]*/)`", text
    ):
        assert any((root / folder).is_dir() for root in (ROOT, ROOT / "src" / "karez")), folder
