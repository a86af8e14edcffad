"""Print the result of a benchmark: a table for people, one JSON object for machines."""

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


def report(name: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Print rows as a table, then everything as JSON on one line."""
    heads = list(rows[0])
    widths = [
        max(len(str(row[head])) for row in [*rows, dict.fromkeys(heads, "")]) for head in heads
    ]
    widths = [max(width, len(head)) for width, head in zip(widths, heads, strict=True)]
    print("  ".join(head.ljust(width) for head, width in zip(heads, widths, strict=True)))
    for row in rows:
        print("  ".join(str(row[h]).ljust(w) for h, w in zip(heads, widths, strict=True)))
    machine = {
        "cores": len(os.sched_getaffinity(0)),
        "python": sys.version.split()[0],
        "system": platform.platform(),
        "load": round(os.getloadavg()[0], 2),
    }
    print(json.dumps({"benchmark": name, "machine": machine, "rows": list(rows)}))


def traces(name: str) -> Path:
    """Find a folder of traces; exit with a message if the folder does not exist."""
    default = Path(__file__).parent.parent.parent / "shared" / "traces"
    folder = Path(os.environ.get("KAREZ_TRACES", default)) / name
    if not folder.exists():
        print(f"skipped: no traces in {folder}; set KAREZ_TRACES")
        raise SystemExit(0)
    return folder
