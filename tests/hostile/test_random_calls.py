"""Random calls by two projects: neither sees a word, an id or a byte of the other (H5 to H9)."""

import copy
import hashlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest

from karez.core.identity import Role
from karez.core.processes import LogChunk
from tests.api import Api
from tests.hostile.conftest import TwoProjects
from tests.hostile.requests import EXAMPLES

CALLS = int(os.environ.get("KAREZ_TEST_CALLS", "100000"))
"""How many, in `make deep`."""
ROUTES = [
    tuple(line.split()[1:])
    for line in (Path(__file__).parents[1] / "server" / "routes.txt").read_text().splitlines()
]
LEFT_OUT = {("POST", "/jobs/{job}/tunnels"), ("POST", "/alerts/{project}/{name}/test")}
"""Routes that need a node, or send to a webhook."""


@dataclass
class Own:
    """What a project has: words that only it may see, and names that anybody may try."""

    name: str
    keys: list[str]
    words: set[str] = field(default_factory=set)
    """Contents and ids that are in no call of the other project."""
    idents: set[str] = field(default_factory=set)
    """Ids and names, which the other project knows and asks for."""

    def word(self, chance: Random) -> str:
        made = f"only-{self.name}-{chance.randbytes(6).hex()}"
        self.words.add(made)
        return made


def settled(api: Api, chance: Random, name: str) -> Own:
    """A project with one of everything, whose contents are words of its own."""
    roles = (Role.VIEWER, Role.MEMBER, Role.ADMIN)
    own = Own(name, [api.key(role, name) for role in roles])
    _, member, admin = own.keys
    content = own.word(chance).encode()
    digest = hashlib.sha256(content).hexdigest()
    api.ask("PUT", f"/blobs/{digest}", member, content=content)
    artifact = {
        "name": f"data-{name}",
        "project": name,
        "kind": "dataset",
        "format": own.word(chance)[:40],
        "files": [{"path": own.word(chance), "sha256": digest, "size_bytes": len(content)}],
        "facts": {"note": own.word(chance)},
        "lineage": {"source": own.word(chance)},
    }
    job = {
        "name": f"job-{name}",
        "project": name,
        "command": ["echo", own.word(chance)],
        "env": {"WORD": own.word(chance)},
        "settings": {"word": own.word(chance)},
    }
    key = {"name": own.word(chance)[:40], "project": name, "role": "viewer"}
    made = [
        api.ask("POST", "/artifacts", member, json=artifact).json()["id"],
        api.ask("POST", "/jobs", member, json=job).json()["id"],
        api.ask("POST", "/keys", admin, json=key).json()["id"],
    ]
    secret = own.word(chance)[:40].upper().replace("-", "_")
    own.words = {word[:40] for word in own.words} | {secret}
    body = {"text": own.word(chance)}
    api.ask("PUT", f"/projects/{name}/secrets/{secret}", admin, json=body)
    output = own.word(chance).encode()
    api.cloud.logs.append(made[1], "rank-0.0.1", LogChunk(start=0, data=output))
    own.idents = {*made, digest, f"job-{name}", f"data-{name}"}
    hidden = {**job, "name": own.word(chance)[:40]}
    own.words.add(api.ask("POST", "/jobs", member, json=hidden).json()["id"])
    return own


def call(chance: Random, both: list[Own]) -> tuple[str, str, Any]:
    """A route with its places filled, and a body, with names of either project."""
    method, route = chance.choice([one for one in ROUTES if one not in LEFT_OUT])
    idents = sorted({ident for own in both for ident in own.idents})
    names = [*idents, "a", "b", "*", "n", "rank-0.0.1", "x"]

    def fill(match: re.Match[str]) -> str:
        place = match[1].partition(":")[0]
        return chance.choice(["a", "b"]) if place == "project" else chance.choice(names)

    path = re.sub(r"\{([^}]+)\}", fill, route)
    if chance.random() < 0.5:
        query = {"project": "ab*"[chance.randrange(3)], "limit": 1000, "name": chance.choice(names)}
        path += "?" + "&".join(f"{name}={value}" for name, value in query.items())
    examples = [e for e in EXAMPLES if e.startswith(method) and same(route, e.split()[1])]
    if not examples:
        return method, path, None
    body = copy.deepcopy(EXAMPLES[examples[0]])
    for _ in range(chance.randrange(3)):
        put(chance, body, names)
    if isinstance(body, dict) and route != "/projects":
        body["project"] = chance.choice(["a", "b"])
    return method, path, body


def same(route: str, example: str) -> bool:
    """Whether an example is one of a route."""
    places, words = route.split("/"), example.split("/")
    return len(places) == len(words) and all(
        place == word or place.startswith("{") for place, word in zip(places, words, strict=True)
    )


def put(chance: Random, body: Any, names: list[str]) -> None:
    """Put a name in the place of some text of a body."""
    if isinstance(body, dict) and body:
        key = chance.choice(sorted(body))
        if isinstance(body[key], str):
            body[key] = chance.choice(names)
        else:
            put(chance, body[key], names)
    elif isinstance(body, list) and body:
        index = chance.randrange(len(body))
        if isinstance(body[index], str):
            body[index] = chance.choice(names)
        else:
            put(chance, body[index], names)


def run(two: TwoProjects, calls: int, seed: int) -> None:
    chance, api = Random(seed), two.api
    both = [settled(api, chance, name) for name in "ab"]
    answered = 0
    for _ in range(calls):
        own, other = both if chance.random() < 0.5 else reversed(both)
        method, path, body = call(chance, both)
        if path.startswith("/keys/") and method == "DELETE":
            continue  # else all are gone by and by
        sent = {} if body is None else {"json": body}
        answer = api.ask(method, path, chance.choice(own.keys), **sent)
        assert answer.status_code < 500, (method, path, body, answer.text)
        seen = [word for word in other.words if word in answer.text]
        assert not seen, (own.name, method, path, body, answer.text)
        answered += answer.status_code < 400
    assert answered > calls / 10
    for own in both:
        viewer = own.keys[0]
        assert api.ask("GET", "/whoami", viewer).json()["project"] == own.name
        for kind in ("jobs", "artifacts"):
            listed = api.ask("GET", f"/{kind}?limit=1000", viewer).json()
            assert {one["spec"]["project"] for one in listed} <= {own.name}


@pytest.mark.story
def test_some_random_calls_of_two_projects(two: TwoProjects) -> None:
    run(two, 400, seed=1)


@pytest.mark.deep
def test_random_calls_of_two_projects(two: TwoProjects) -> None:
    run(two, CALLS, seed=2)
