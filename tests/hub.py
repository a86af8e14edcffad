"""A hub on loopback that answers as the Hugging Face hub does: for tests of `hf://`."""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub(repositories: Mapping[str, Mapping[str, bytes]]) -> Iterator[str]:
    """Serve repositories, such as `models/org/name`, of files; yields the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, *, with_body: bool) -> None:
            body, headers, status = _found(repositories, unquote(self.path.partition("?")[0]))
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


Answer = tuple[bytes, dict[str, str], int]


def _found(repositories: Mapping[str, Mapping[str, bytes]], path: str) -> Answer:
    """(body, headers, status) of a path."""
    for name, files in repositories.items():
        answer = _of_repository(name, files, path)
        if answer is not None:
            return answer
    return b"{}", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}, 401


def _of_repository(name: str, files: Mapping[str, bytes], path: str) -> Answer | None:
    json_type = {"Content-Type": "application/json"}
    if path.startswith(f"/api/{name}/tree/"):
        tree = [
            {"type": "file", "path": file, "size": len(body), "oid": _digest(body)}
            for file, body in files.items()
        ]
        return json.dumps(tree).encode(), json_type, 200
    if path.startswith(f"/api/{name}/revision/gone"):
        return b"{}", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev"}, 404
    if path == f"/api/{name}" or path.startswith(f"/api/{name}/revision/"):
        listed = [{"rfilename": file} for file in files]
        about = {"id": name.partition("/")[2], "sha": COMMIT, "siblings": listed}
        return json.dumps(about).encode(), json_type, 200
    place = f"/{name.removeprefix('models/')}/resolve/{COMMIT}/"
    body = files.get(path.removeprefix(place)) if path.startswith(place) else None
    if body is None:
        return None
    return body, {"ETag": f'"{_digest(body)}"', "X-Repo-Commit": COMMIT}, 200


def _digest(body: bytes) -> str:
    return hashlib.sha1(body, usedforsecurity=False).hexdigest()
