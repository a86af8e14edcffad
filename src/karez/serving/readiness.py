"""Whether a replica is ready: its engine says so, computes a token, and answers a probe rightly."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from karez.core.engines import Task
from karez.core.probes import Probe
from karez.core.services import ServiceSpec

HEALTH_S, TOKEN_S, PROBE_S = 2.0, 10.0, 60.0
PROBE_TOKENS = 64
SHOWN = 200
"""Characters of a wrong answer that people are shown."""


_FIRST: Mapping[Task, tuple[str, Mapping[str, Any], str]] = {
    Task.GENERATE: (
        "/v1/completions",
        {"prompt": "1", "max_tokens": 1, "temperature": 0},
        "choices",
    ),
    Task.EMBED: ("/v1/embeddings", {"input": "1"}, "data"),
    Task.RERANK: ("/v1/rerank", {"query": "1", "documents": ["1"]}, "results"),
    Task.CLASSIFY: ("/v1/classify", {"input": "1"}, "data"),
}
"""Task -> path and body of the first request, and the field that its answer has."""


class Readiness(NamedTuple):
    """What was found."""

    is_ready: bool
    wrong: str = ""
    """Why it never will be, as far as its answer tells."""


def ask_engine(url: str, path: str, spec: ServiceSpec, key: str) -> Readiness:
    """Ask an engine whether it serves, and for a token; with a probe, for the answer to that.

    Args:
        url: Of the engine.
        path: Where it answers 200 once it serves.
        spec: Of its service.
        key: Which the engine awaits.
    """
    try:
        status, answer = _ask_at(url, path, key, None, HEALTH_S)
        asks, asked, has = _FIRST[spec.task]
        if status == HTTPStatus.OK:
            one = {"model": spec.name, **asked}
            status, answer = _ask_at(url, asks, key, one, TOKEN_S)
        if status != HTTPStatus.OK or not answer.get(has):
            return Readiness(False)
        return Readiness(True) if spec.probe is None else _probe(url, spec.name, spec.probe, key)
    except (OSError, HTTPException, ValueError):
        return Readiness(False)


def _probe(url: str, model: str, probe: Probe, key: str) -> Readiness:
    asked = {
        "model": model,
        "messages": [{"role": "user", "content": probe.prompt}],
        "max_tokens": PROBE_TOKENS,
        "temperature": 0,
    }
    status, answer = _ask_at(url, "/v1/chat/completions", key, asked, PROBE_S)
    if status != HTTPStatus.OK:
        return Readiness(False, f"it answered the probe with status {status}")
    choices = answer.get("choices") or [{}]
    said = str((choices[0].get("message") or {}).get("content") or "")
    if probe.expect in said:
        return Readiness(True)
    return Readiness(False, f"it answered the probe with {said[:SHOWN]!r}, not {probe.expect!r}")


def _ask_at(
    url: str, path: str, key: str, body: dict[str, Any] | None, within_s: float
) -> tuple[int, dict[str, Any]]:
    """Status and body of an answer; GET without a body. Raises OSError, HTTPException."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=within_s)
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    try:
        if body is None:
            connection.request("GET", path)
        else:
            connection.request("POST", path, json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    found = json.loads(text) if body is not None and answer.status == HTTPStatus.OK else {}
    return answer.status, found if isinstance(found, dict) else {}
