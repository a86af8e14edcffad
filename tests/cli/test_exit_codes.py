"""Exit codes: 0 done, 1 refused or failed, 2 misused (docs/errors.md)."""

from collections.abc import Callable

import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from karez.cli.main import main
from karez.core.identity import Role
from tests.api import Api
from tests.cli.conftest import Karez
from tests.fakes import cpu_node
from tests.loopback import served


def test_success_exits_with_0(karez: Karez) -> None:
    done = karez("jobs", "submit", "--name", "hello", "--", "echo", "hi")
    assert (done.code, done.err) == (0, "")
    assert "follow it with: karez logs -f hello" in done.out
    assert karez("jobs", "list").code == 0
    assert karez("logs", "hello").code == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("jobs", "show", "nope"), "There is no job 'nope' that you may see.\n`karez jobs list`"),
        (("logs", "nope"), "There is no service 'nope'"),
        (("services", "deploy", "nope", "--name", "s"), "There is no artifact 'default/nope'"),
        (("projects", "create", "default"), "There is a project 'default' already."),
    ],
)
def test_an_api_error_exits_with_1(karez: Karez, words: tuple[str, ...], says: str) -> None:
    done = karez(*words)
    assert done.code == 1, done.err
    assert says in done.err
    assert done.out == ""


def test_a_key_without_the_role_exits_with_1(karez: Karez, api: Api) -> None:
    viewer = karez("jobs", "submit", "--", "true", key=api.key(Role.VIEWER))
    assert viewer.code == 1
    assert "This needs role member" in viewer.err
    wrong = karez("jobs", "list", key="wrong")
    assert wrong.code == 1
    assert "The API key is missing, unknown or revoked." in wrong.err


def test_a_bad_request_exits_with_2_from_client_and_from_api(karez: Karez, api: Api) -> None:
    api.cloud.store.pool.record_nodes([cpu_node("n", 2)], now=1.0)
    found_there = karez("jobs", "submit", "--each", "cpu=64", "--", "true")
    assert found_there.code == 2, found_there.err
    assert "could never start" in found_there.err
    found_here = karez("jobs", "submit", "--each", "tpu=1", "--", "true")
    assert found_here.code == 2
    assert "Invalid device kind 'tpu'" in found_here.err
    assert karez("jobs", "nope").code == 2
    assert karez("jobs", "list", "--limit", "0").code == 2


@pytest.mark.parametrize(
    ("code", "status", "exit_code"),
    [("bad-request", 422, 2), ("quota-exceeded", 409, 1), ("teapot", 418, 1)],
)
def test_unknown_api_errors_exit_with_the_same_codes(
    point: Callable[[str, str], None],
    capsys: pytest.CaptureFixture[str],
    code: str,
    status: int,
    exit_code: int,
) -> None:
    app = FastAPI()

    @app.get("/api/v1/jobs")
    def refuse() -> JSONResponse:
        body = {"code": code, "status": status, "title": "No.", "hint": "Ask again."}
        return JSONResponse(body, status)

    with served(app) as url:
        point(url, "k")
        with pytest.raises(SystemExit) as end:
            main(["jobs", "list"])
    assert end.value.code == exit_code
    assert capsys.readouterr().err == "No.\nAsk again.\n"


def test_submitted_job_has_options_in_place_of_file_values(
    karez: Karez, api: Api, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("job") / "job.toml"
    file.write_text('name = "tune"\ncommand = ["true"]\npriority = 3\n[gang]\nworkers = 1\n')
    words = ("jobs", "submit", "-f", str(file))
    assert karez(*words, "--priority", "7", "--workers", "2:4", "--name", "other").code == 0
    (job,) = api.ask("GET", "/jobs").json()
    spec = job["spec"]
    assert (spec["name"], spec["priority"], spec["gang"]["want"]) == ("other", 7, 4)
    refused = karez(*words, "--recipe", "sft-lora", "--", "true")
    assert refused.code == 2
    assert "Give either a command or a recipe." in refused.err
