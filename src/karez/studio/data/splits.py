"""Splits of rows into parts that share nothing: whole groups of near-duplicates go together. Pure.

A row's place follows from what it says and the seed, not from the order of the file.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from karez.core.table_formats import Part


def split(
    groups: Sequence[int],
    texts: Sequence[str],
    labels: Sequence[str],
    shares: Mapping[Part, float],
    seed: int,
) -> list[Part]:
    """The part of each row.

    Each label keeps about its share in each part, and its largest group is trained on.

    Args:
        groups: Group of each row; rows of a group stay together.
        texts: What the rows say, to order them by.
        labels: Label of each row; all the same where there are none.
        shares: Part -> share of the rows that it is to have; the rest trains.
        seed: Of the order.
    """
    members: dict[int, list[int]] = defaultdict(list)
    for number, group in enumerate(groups):
        members[group].append(number)
    by_label: dict[str, list[list[int]]] = defaultdict(list)
    for rows in members.values():
        count = Counter(labels[row] for row in rows)
        label = max(sorted(count), key=lambda one: count[one])
        by_label[label].append(rows)
    parts = [Part.TRAIN] * len(groups)
    owed = {part: max(0.0, 1 - share * len(groups)) for part, share in shares.items()}
    for label in sorted(by_label):
        ordered = sorted(by_label[label], key=lambda rows: _place(rows, texts, seed))
        ordered.remove(max(ordered, key=len))  # this group trains, so that each label is learnt
        total = sum(len(rows) for rows in by_label[label])
        for part, share in shares.items():
            owed[part] += share * total
            left = []
            for rows in ordered:
                if owed[part] < 0.5 or len(rows) > owed[part] + 0.5:
                    left.append(rows)
                    continue
                owed[part] -= len(rows)
                for row in rows:
                    parts[row] = part
            ordered = left
    return parts


def _place(rows: Sequence[int], texts: Sequence[str], seed: int) -> bytes:
    return order_key(min(texts[row] for row in rows), seed)


def order_key(text: str, seed: int) -> bytes:
    """Where a text stands in an order that only it and the seed give."""
    return hashlib.sha256(f"{seed}\n{text}".encode()).digest()


def without_leaks(groups: Sequence[int], parts: Sequence[Part]) -> list[bool]:
    """Whether each row stays, where files say what is for what.

    A row goes whose near-duplicate is in a part that is judged by: of held-out and validation rows,
    held-out ones stay; of validation and training rows, validation ones.
    """
    order = (Part.TRAIN, Part.VALIDATION, Part.HELD_OUT)
    rank = {part: number for number, part in enumerate(order)}
    highest: dict[int, int] = defaultdict(int)
    for group, part in zip(groups, parts, strict=True):
        highest[group] = max(highest[group], rank[part])
    return [rank[p] == highest[group] for group, p in zip(groups, parts, strict=True)]


def is_labelled(answers: Sequence[str]) -> bool:
    """Whether answers are labels: at least three rows for each on average."""
    return len(set(answers)) * 3 <= len(answers)


def shares_of(validation: float, held_out: float) -> dict[Part, float]:
    """The shares that `split` takes. Raises ValueError if nothing is left to train on."""
    shares = {Part.HELD_OUT: held_out, Part.VALIDATION: validation}
    if not all(0 <= share < 1 for share in shares.values()) or not sum(shares.values()) < 1:
        raise ValueError(f"validation and held_out are shares, below 1 together, got {shares}")
    return {part: share for part, share in shares.items() if share}
