"""Recipe: tables of a user's own as chat rows, split so that no near-duplicate is on both sides."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from karez.core import environment
from karez.core.errors import BadRow, BrokenArtifact
from karez.core.table_formats import KNOWN_ENDINGS, Part, TableFormat, part_of, table_format
from karez.studio.data.kept_rows import Rows
from karez.studio.data.near_duplicates import group_near_duplicates
from karez.studio.data.row_shapes import ChatRow, RowShape, guess_shape, to_chat
from karez.studio.data.splits import is_labelled, order_key, split, without_leaks
from karez.studio.data.tables import read_records
from karez.studio.data_settings import PrepareData
from karez.studio.recipes.recipe_io import (
    folder,
    notice,
    say,
    settings_of,
    tell,
    write_card,
    write_rows,
)

TOLD_EVERY = 1000
SAMPLE = 5


def main() -> None:
    """Read, split, save."""
    settings = settings_of(PrepareData)
    read = read_tables(folder(environment.INPUTS) / "tables", settings)
    groups, parts = divide(read, settings)
    _save(read, groups, parts, settings)


def read_tables(root: Path, settings: PrepareData) -> Rows:
    """The chat rows of all tables in a folder, without equal ones.

    Raises:
        BadRow: A row cannot be used, and such rows are not to be dropped.
        BrokenArtifact: There is no table, or one cannot be read.
    """
    tables = _tables(root)
    read = Rows()
    for name in tables:
        for row in _chat_rows(root / name, name, settings, read):
            read.rows.append(row)
            read.parts.append(_named_part(name))
    if not read.rows:
        why = "; ".join(examples[0] for examples in read.examples.values())
        problem = f"none of its {read.dropped.total()} rows can be used; the first: {why}"
        raise BadRow(place="the data set", problem=problem, fix="Correct them.")
    _drop_equal(read)
    return read


def _named_part(name: str) -> Part | None:
    """What a file's name, else the nearest folder's, says its rows are for."""
    path = Path(name)
    steps = (path.name, *(parent.name for parent in path.parents))
    return next((part for step in steps if (part := part_of(step)) is not None), None)


def _tables(root: Path) -> list[str]:
    """The files to read, in the order of their names. Raises BrokenArtifact."""
    names = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
    formats = {name: table_format(name) for name in names}
    tables = [name for name, found in formats.items() if found is not None]
    # JSON beside tables of another kind describes them: names of labels, settings of a loader
    if any(formats[name] != TableFormat.JSON for name in tables):
        tables = [name for name in tables if formats[name] != TableFormat.JSON]
    if not tables:
        problem = f"none of its files is a table: their names end in {KNOWN_ENDINGS}"
        raise BrokenArtifact(name="tables", problem=problem)
    others = [name for name in names if name not in tables]
    if others:
        shown = ", ".join(others[:3]) + ", ..." * (len(others) > 3)
        notice(f"not read, since they are no tables of rows: {shown}")
    return tables


def _chat_rows(path: Path, name: str, settings: PrepareData, read: Rows) -> Iterator[ChatRow]:
    wanted = RowShape(
        prompt=settings.prompt,
        answer=settings.answer,
        system=settings.system,
        instruction=settings.instruction,
    )
    shape: RowShape | None = None
    for number, record in enumerate(read_records(path, name, settings.encoding)):
        if number % TOLD_EVERY == 0:
            tell(f"reading {name}", number)
        if shape is None:
            shape = guess_shape(record, wanted)
            read.shapes[name] = shape.show()
        try:
            yield to_chat(record, shape)
        except BadRow as error:
            if settings.bad_rows != "drop":
                raise
            read.drop("cannot be used", f"{error.place}: {error.problem}")
    if shape is None:
        fix = "Fill it, or take it out of the data set."
        raise BadRow(place=name, problem="there are no rows", fix=fix)


def _drop_equal(read: Rows) -> None:
    """Leave out rows that say what an earlier one says; of two parts, the one that judges keeps it.

    The order of importance is that of `without_leaks`, which runs later on what is left.
    """
    seen: set[tuple[str, str, Part | None]] = set()
    stays = []
    for row, part in zip(read.rows, read.parts, strict=True):
        key = (row.prompt, json.dumps(row.messages), part)
        stays.append(key not in seen)
        seen.add(key)
    read.keep(stays, "equal to another row")


def divide(read: Rows, settings: PrepareData) -> tuple[list[int], list[Part]]:
    """(group of near-duplicates, part) of each row that stays; rows that leak are left out.

    Raises:
        BadRow: The rows cannot be split, or there is nothing to learn from them.
    """
    answers = [row.answer for row in read.rows]
    if len(answers) > 1 and len(set(answers)) == 1:
        problem = f"all {len(answers)} rows have the answer {answers[0][:60]!r}"
        fix = "There is nothing to learn: name another column for the answer, or add rows."
        raise BadRow(place="the data set", problem=problem, fix=fix)
    prompts = [row.prompt for row in read.rows]

    def told(count: int) -> None:
        if count % TOLD_EVERY == 0:
            tell("looking for near-duplicates", count, len(prompts))

    groups = group_near_duplicates(prompts, settings.similarity, told)
    named = {part or Part.TRAIN for part in read.parts}
    if named == {Part.VALIDATION, Part.TRAIN}:
        notice("no file is named for held-out rows: all rows are split anew")
    if named >= {Part.TRAIN, Part.HELD_OUT}:
        parts = [part or Part.TRAIN for part in read.parts]
        stays = without_leaks(groups, parts)
        groups = [group for group, is_kept in zip(groups, stays, strict=True) if is_kept]
        read.keep(stays, "near-duplicate of a row that is judged by")
        parts = [part or Part.TRAIN for part in read.parts]
        if settings.validation and Part.VALIDATION not in parts:
            _take_validation(read, groups, parts, settings)
    else:
        shares = {Part.HELD_OUT: settings.held_out, Part.VALIDATION: settings.validation}
        parts = _split(read.rows, groups, shares, settings.seed)
    _check_parts(parts, groups, settings)
    return groups, parts


def _take_validation(
    read: Rows, groups: Sequence[int], parts: list[Part], settings: PrepareData
) -> None:
    """Take validation rows out of the training rows, where files are named for the other parts."""
    numbers = [number for number, part in enumerate(parts) if part == Part.TRAIN]
    found = _split(
        [read.rows[number] for number in numbers],
        [groups[number] for number in numbers],
        {Part.VALIDATION: settings.validation},
        settings.seed,
    )
    for number, part in zip(numbers, found, strict=True):
        parts[number] = part


def _split(
    rows: Sequence[ChatRow], groups: Sequence[int], shares: Mapping[Part, float], seed: int
) -> list[Part]:
    answers = [row.answer for row in rows]
    return split(
        groups,
        [row.prompt for row in rows],
        answers if is_labelled(answers) else [""] * len(answers),
        {part: share for part, share in shares.items() if share},
        seed,
    )


def _check_parts(parts: Sequence[Part], groups: Sequence[int], settings: PrepareData) -> None:
    wanted = {
        Part.TRAIN: 1.0,
        Part.HELD_OUT: settings.held_out,
        Part.VALIDATION: settings.validation,
    }
    missing = [part for part, share in wanted.items() if share and part not in parts]
    if not missing:
        return
    largest = max(Counter(groups).values(), default=0)
    problem = (
        f"of {len(parts)} rows in {len(set(groups))} groups of near-duplicates none is left for "
        f"{missing[0]} (the largest group has {largest})"
    )
    fix = "Add rows that differ, or raise similarity so that fewer count as near-duplicates."
    raise BadRow(place="the data set", problem=problem, fix=fix)


def _save(read: Rows, groups: Sequence[int], parts: Sequence[Part], settings: PrepareData) -> None:
    tell("saving")
    target = folder(environment.OUT) / "data"
    target.mkdir(exist_ok=True)
    counts = Counter(parts)
    for part in Part:
        if counts[part] or part != Part.VALIDATION:
            chosen = [row for row, own in zip(read.rows, parts, strict=True) if own == part]
            if part != Part.TRAIN:  # so that the first of them are a sample of all
                chosen.sort(key=lambda row: order_key(row.prompt, settings.seed))
            write_rows(target / f"{part}.jsonl", ({"messages": row.messages} for row in chosen))
    facts = _facts(read, groups, counts)
    (target / "report.json").write_text(json.dumps(_report(read, facts), indent=1))
    write_card(
        target,
        kind="dataset",
        name=settings.name,
        format="chat-jsonl",
        source=settings.source,
        licence=settings.licence,
        facts=facts,
    )
    for name, shape in read.shapes.items():
        say(f"{name}: {shape}")
    for why, count in read.dropped.items():
        notice(f"{count} rows left out: {why}")
    if facts["contradicting_rows"]:
        count = facts["contradicting_rows"]
        notice(f"{count} rows ask what another row asks and answer something else")
    say(", ".join(f"{counts[part]} {part} rows" for part in Part if counts[part]))


def _facts(read: Rows, groups: Sequence[int], counts: Counter[Part]) -> dict[str, Any]:
    answers = [row.answer for row in read.rows]
    facts: dict[str, Any] = {f"{part}_rows": counts[part] for part in Part if counts[part]}
    facts["near_duplicates"] = len(groups) - len(set(groups))
    facts["contradicting_rows"] = _contradicting(read.rows)
    if read.dropped:
        facts["left_out_rows"] = read.dropped.total()
    if is_labelled(answers):
        facts["labels"] = len(set(answers))
        facts["rarest_label_rows"] = min(Counter(answers).values())
    return facts


def _contradicting(rows: Iterable[ChatRow]) -> int:
    """Rows whose prompt has more than one answer."""
    answers: dict[str, Counter[str]] = {}
    for row in rows:
        answers.setdefault(row.prompt, Counter())[row.answer] += 1
    return sum(found.total() for found in answers.values() if len(found) > 1)


def _report(read: Rows, facts: dict[str, Any]) -> dict[str, Any]:
    answers = Counter(row.answer for row in read.rows)
    labels = dict(answers.most_common()) if is_labelled([r.answer for r in read.rows]) else {}
    return {
        "columns": read.shapes,
        "facts": facts,
        "labels": labels,
        "left_out": {
            why: {"rows": count, "examples": read.examples[why]}
            for why, count in read.dropped.items()
        },
        "sample": [row.messages for row in read.rows[:: max(1, len(read.rows) // SAMPLE)]][:SAMPLE],
    }
