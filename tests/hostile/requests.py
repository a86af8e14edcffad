"""A valid example of each request, and what comes of it when one value is replaced."""

import json
from collections.abc import Iterator
from typing import Any

DIGEST = "0" * 64
SERVICE: dict[str, object] = {
    "name": "s",
    "model": "nothing",
    "engine": "llamacpp",
    "replicas": 1,
    "each": [{"kind": "cpu", "milli": 1000}],
    "context_tokens": 64,
    "parallel": 1,
    "priority": 1,
    "min_replicas": 0,
    "max_replicas": 2,
    "idle_s": 60.0,
    "probe": {"prompt": "1 + 1 =", "expect": "2"},
}
EXAMPLES: dict[str, Any] = {
    "POST /jobs": {
        "name": "j",
        "kind": "batch",
        "command": ["true", "x"],
        "settings": {"x": 1.0, "y": "z"},
        "gang": {
            "min": 1,
            "want": 1,
            "max": 2,
            "each": [{"kind": "cpu", "milli": 1000, "memory_bytes": 0, "speed": 1.0}],
            "topology": "any",
            "among": {"on": [], "off": [], "having": []},
            "roles": [{"name": "loader", "workers": 1, "command": ["true"]}],
            "spares": 0,
        },
        "inputs": {"d": "nothing"},
        "env": {"A": "b"},
        "secrets": [],
        "priority": 0,
        "max_duration_s": 60.0,
        "expected_duration_s": 30.0,
        "deadline_s": 100.0,
        "preemptible": False,
        "retry": {"limit": 1, "causes": ["crashed"]},
        "ladder": ["restart"],
        "peers": 1,
        "after": [],
        "array": "0-1",
    },
    "POST /services": SERVICE,
    "POST /services/fit": SERVICE,
    "PUT /services/s": {"name": "s", "model": "nothing", "replicas": 1, "idle_s": 60.0},
    "PUT /prices/m": {
        "model": "m",
        "prompt": 150000,
        "cached": 30000,
        "completion": 600000,
        "off_peak": "22:00-06:00",
        "off_peak_percent": 50,
    },
    "PUT /device-prices/npu": {
        "device": "npu",
        "hour": 1800000,
        "off_peak": "22:00-06:00",
        "off_peak_percent": 50,
        "services": True,
    },
    "POST /openai/batches": {
        "input_file_id": "art-0",
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "metadata": {"a": "b"},
    },
    "POST /artifacts": {
        "name": "d",
        "kind": "dataset",
        "files": [{"path": "f", "sha256": DIGEST, "size_bytes": 1}],
        "format": "x",
        "lineage": {"source": "s", "licence": "l", "inputs": {"a": "b"}},
        "facts": {"n": 1, "f": 1.5, "t": "x", "b": True},
    },
    "POST /blobs/missing": [DIGEST],
    "POST /keys": {"name": "k", "project": "default", "role": "member", "expires_in_s": 60.0},
    "POST /keys/k/rotate": {"grace_s": 60.0},
    "POST /projects": {
        "name": "p",
        "quota": {"npu": 1000},
        "cohort": "c",
        "guarantee": {"npu": 1},
        "lend": {"npu": 1},
        "weight": 1,
        "limits": {"priority": 0, "queued": 1, "replicas": 1, "storage_bytes": 1},
    },
    "PUT /projects/default": {"name": "default", "weight": 2},
    "PUT /projects/default/secrets/S": {"text": "t"},
    "POST /pool/what-if": {
        "add": 1,
        "like": "n",
        "remove": [],
        "quota": {"default": {"npu": 1}},
        "submit": {"min": 1, "want": 1},
        "project": "default",
        "priority": 1,
    },
    "PUT /pool/nodes/n/maintenance": [
        {"starts_at": 4e9, "ends_at": 5e9, "reason": "r"},
        {"starts_at": 6e9, "ends_at": 7e9, "reason": "r"},
    ],
    "PUT /pool/nodes/n/override": {
        "site": "s",
        "labels": {"a": "b"},
        "health": {"cpu:0": "healthy"},
    },
    "POST /faults": {
        "sender": "s",
        "node": "n",
        "code": "c",
        "level": "minor",
        "occasion": "once",
        "device": 0,
        "detail": "d",
        "at": 1.0,
    },
    "PUT /alerts/default/r": {
        "name": "r",
        "on": ["waiting"],
        "to": "a@example.com",
        "project": "default",
        "jobs": "*",
        "waiting_s": 5.0,
    },
    "POST /jobs/victim/faults": [{"what": "kill", "rank": 0, "after_s": 0.0}],
    "POST /jobs/victim/tunnels": {
        "kind": "shell",
        "rank": 0,
        "command": ["sh"],
        "terminal": {"rows": 1, "columns": 1, "name": "t"},
        "port": 1,
        "path": "p",
    },
    "PUT /jobs/victim/tunnels/t/terminal": {"rows": 1, "columns": 1, "name": "t"},
}
"""Method and path -> body."""
DEEP = json.dumps("x")
for _ in range(60):
    DEEP = f"[{DEEP}]"
HOSTILE: tuple[str, ...] = (
    *("NaN", "Infinity", "-Infinity", "1e999", "-1", "0", "0.5", "1e308", "-1e308", "1e-320"),
    *("9223372036854775807", "9223372036854775808", "-9223372036854775809", "1" + "0" * 400),
    *("null", "true", "[]", "{}", '""', '"\\u0000"', '"a\\u0000b"', '"\\u001b[2J"', '"\\ud800"'),
    *('"../../../etc/x"', '"/tmp/x"', '"a/b"', '"' + "é" * 300 + '"', '"\\u202e"', '"*"', DEEP),
    *('"' + "x" * 200_000 + '"', '{"a": {"b": NaN}}', "[NaN]", '"a\\nb"'),
)
"""JSON texts, of which some are only Python's."""


def mutated(example: Any) -> Iterator[tuple[str, str]]:
    """(path, JSON text) of the example with each value, or each key, replaced."""
    marker = "@@"
    for path in _paths(example):
        text = json.dumps(_replaced(example, path, marker))
        for value in HOSTILE:
            yield "/".join(map(str, path)), text.replace(f'"{marker}"', value, 1)
    for path in _keys(example):
        text = json.dumps(_renamed(example, path, marker))
        for value in HOSTILE:
            if value.startswith('"'):
                yield "/".join(map(str, path)) + " (key)", text.replace(f'"{marker}"', value, 1)


def _paths(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield above
    items: dict[Any, Any] = value if isinstance(value, dict) else {}
    items = dict(enumerate(value)) if isinstance(value, list) else items
    for key, inner in items.items():
        yield from _paths(inner, (*above, key))


def _keys(value: Any) -> Iterator[tuple[Any, ...]]:
    for path in _paths(value):
        if path and isinstance(path[-1], str):
            yield path


def _replaced(value: Any, path: tuple[Any, ...], by: Any) -> Any:
    if not path:
        return by
    made = value.copy()
    made[path[0]] = _replaced(value[path[0]], path[1:], by)
    return made


def _renamed(value: Any, path: tuple[Any, ...], by: str) -> Any:
    made = value.copy()
    if len(path) == 1:
        made[by] = made.pop(path[0])
    else:
        made[path[0]] = _renamed(value[path[0]], path[1:], by)
    return made
