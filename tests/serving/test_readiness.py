"""Whether an engine is ready, by what real HTTP servers answer."""

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from typing_extensions import override

from karez.core.probes import Probe
from karez.core.services import ServiceSpec
from karez.serving.readiness import Readiness, ask_engine

Answers = dict[str, tuple[int, Any]]
TOKEN = {"choices": [{"text": "x"}]}
Start = Callable[[Answers], str]


@pytest.fixture
def start() -> Iterator[Start]:
    """Serves what is answered at each path; returns its URL."""
    servers: list[ThreadingHTTPServer] = []

    def run(answers: Answers) -> str:
        class Engine(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer()

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                assert self.headers["authorization"] == "Bearer k"
                assert body["model"] == "s"
                self._answer()

            def _answer(self) -> None:
                status, said = answers.get(self.path, (404, {}))
                data = said if isinstance(said, bytes) else json.dumps(said).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            @override
            def log_message(self, format: str, *args: Any) -> None:
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Engine))
        Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield run
    for server in servers:
        server.shutdown()
        server.server_close()


def ask(url: str, probe: Probe | None = None) -> Readiness:
    return ask_engine(url, "/health", ServiceSpec(name="s", model="m", probe=probe), "k")


READY: Answers = {"/health": (200, {}), "/v1/completions": (200, TOKEN)}
RIGHT = Probe(prompt="1 + 1 =", expect="2")


@pytest.mark.parametrize(
    ("answers", "is_ready"),
    [
        (READY, True),
        ({"/health": (503, {}), "/v1/completions": (200, TOKEN)}, False),
        ({"/health": (200, {}), "/v1/completions": (503, {})}, False),
        ({"/health": (200, {}), "/v1/completions": (200, {"choices": []})}, False),
        ({"/health": (200, {}), "/v1/completions": (200, [1])}, False),
        ({"/health": (200, {}), "/v1/completions": (200, b"no JSON")}, False),
    ],
)
def test_a_replica_is_ready_once_it_has_computed_a_token(
    start: Start, answers: Answers, is_ready: bool
) -> None:
    assert ask(start(answers)) == Readiness(is_ready)


def test_nobody_at_a_url_is_not_ready_yet() -> None:
    assert ask("http://127.0.0.1:9") == Readiness(False)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, {"choices": [{"message": {"content": "It is 2."}}]}), ""),
        ((200, {"choices": [{"message": {"content": "It is 3."}}]}), "'It is 3.', not '2'"),
        ((200, {"choices": [{"message": {"content": None}}]}), "'', not '2'"),
        ((200, {"choices": []}), "'', not '2'"),
        ((400, {}), "with status 400"),
    ],
)
def test_an_answer_to_the_probe_is_right_or_never_will_be(
    start: Start, answer: tuple[int, Any], said: str
) -> None:
    found = ask(start({**READY, "/v1/chat/completions": answer}), RIGHT)
    assert found.is_ready == (not said)
    assert said in found.wrong
    assert bool(said) == bool(found.wrong)
