"""How well labels were found, and which are taken for which. Pure."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

MOST_CONFUSED = 20


def label_scores(expected: Sequence[str], found: Sequence[str]) -> dict[str, Any]:
    """Count by label.

    Args:
        expected: The label of each row.
        found: What the model named.

    Returns:
        `macro_f1`, the mean over the labels that rows have; `labels`, for each of them its rows,
        precision (None where it was never named), recall and F1; `confused`, the commonest
        (expected, named, rows).
    """
    rows, named = Counter(expected), Counter(found)
    right = Counter(e for e, f in zip(expected, found, strict=True) if e == f)
    labels: list[dict[str, Any]] = [
        {
            "label": label,
            "rows": rows[label],
            "precision": right[label] / named[label] if named[label] else None,
            "recall": right[label] / rows[label],
            "f1": 2 * right[label] / (rows[label] + named[label]),
        }
        for label in sorted(rows)
    ]
    wrong = Counter((e, f) for e, f in zip(expected, found, strict=True) if e != f)
    return {
        "macro_f1": sum(one["f1"] for one in labels) / max(1, len(labels)),
        "labels": labels,
        "confused": [[e, f, count] for (e, f), count in wrong.most_common(MOST_CONFUSED)],
    }
