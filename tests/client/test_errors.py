"""What the API refuses arrives as the error's own class, on both clients."""

import httpx
import pytest

import karez
from karez.core.devices import DeviceKind
from karez.core.errors import BadRequest, NotAllowed, NotFound, NotSignedIn, Remote
from karez.core.identity import Project, Role
from karez.core.jobs import JobSpec
from tests.api import Api
from tests.client.conftest import Asker


def test_api_errors_arrive_as_their_own_class(asker: Asker, api: Api, url: str) -> None:
    viewer = api.key(Role.VIEWER)
    with pytest.raises(NotFound) as missing:
        asker.ask_at(url, api.admin, "job", "nope")
    assert (missing.value.noun, missing.value.name) == ("job", "nope")
    assert isinstance(missing.value, karez.errors.NotFound)
    with pytest.raises(NotSignedIn):
        asker.ask_at(url, "wrong", "jobs")
    with pytest.raises(NotAllowed) as refused:
        asker.ask_at(url, viewer, "submit", JobSpec(name="x", command=("true",)))
    assert (refused.value.needed, refused.value.held) == ("member", "viewer")
    with pytest.raises(BadRequest, match="limit"):
        asker.ask_at(url, api.admin, "jobs", limit=0)
    with pytest.raises(karez.errors.AlreadyExists, match="'default' already"):
        asker.ask_at(url, api.admin, "add_project", Project(name="default"))


def test_quota_error_has_project_and_kind(asker: Asker, api: Api, url: str) -> None:
    asker.ask_at(url, api.admin, "add_project", Project(name="small", quota={DeviceKind.CPU: 1000}))
    spec = JobSpec(name="x", project="small", command=("true",), gang=karez.gang("4"))
    with pytest.raises(karez.errors.QuotaExceeded) as refused:
        asker.ask_at(url, api.admin, "submit", spec)
    assert (refused.value.project, refused.value.kind) == ("small", "cpu")
    assert "karez projects quota small" in refused.value.hint()


@pytest.mark.parametrize(
    ("status", "body", "kind", "what", "hint"),
    [
        (
            418,
            {"code": "teapot", "title": "It is a teapot.", "hint": "Ask.", "fields": {"a": 1}},
            "teapot",
            "It is a teapot.",
            "Ask.",
        ),
        (
            404,
            {"code": "not-found", "title": "No x.", "hint": "List."},
            "not-found",
            "No x.",
            "List.",
        ),
        (
            404,
            {"code": "not-found", "title": "No x.", "hint": "", "fields": {"noun": "job"}},
            "not-found",
            "No x.",
            "",
        ),
        (
            404,
            {"code": "not-found", "title": "No x.", "hint": "", "fields": ["noun", "name"]},
            "not-found",
            "No x.",
            "",
        ),
        (502, None, "http", "The API answered 502.", ""),
        (500, ["odd"], "http", "The API answered 500.", ""),
        (405, {"code": "http", "title": "Method Not Allowed"}, "http", "Method Not Allowed", ""),
    ],
)
def test_unknown_errors_keep_the_text_of_the_api(
    asker: Asker, status: int, body: object, kind: str, what: str, hint: str
) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        if body is None:
            return httpx.Response(status, text="<html>Bad gateway")
        return httpx.Response(status, json=body)

    with pytest.raises(Remote) as caught:
        asker.ask(refuse, "jobs")
    error = caught.value
    assert (error.kind, error.http_status) == (kind, status)
    assert (error.what(), error.hint()) == (what, hint)


@pytest.mark.parametrize("body", [b"<html>Welcome", b'[{"id": 3}]', b"\xff"])
def test_an_unreadable_answer_raises_remote_with_a_hint(asker: Asker, body: bytes) -> None:
    with pytest.raises(Remote, match="The answer to GET /jobs cannot be read") as caught:
        asker.ask(lambda request: httpx.Response(200, content=body), "jobs")
    assert caught.value.kind == "unreadable"
    assert "KAREZ_URL" in caught.value.hint()
