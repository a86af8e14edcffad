"""Alerts on their way: a real HTTP server and a server that speaks SMTP take them."""

import contextlib
import hashlib
import hmac
import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import pytest

from karez.core.alerts import Alert, AlertEvent, NotDelivered
from karez.drivers.mail import Mail
from karez.drivers.webhooks import SIGNATURE, Webhooks

ALERT = Alert(
    id="a1",
    rule="night",
    project="default",
    event=AlertEvent.FAILED,
    subject="job-1",
    text="karez: job tune has failed: schön",
    at=1.0,
    facts={"name": "tune"},
)


@contextmanager
def served(server: socketserver.TCPServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield int(server.socket.getsockname()[1])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Hook(BaseHTTPRequestHandler):
    got: ClassVar[list[tuple[str, dict[str, str], bytes]]] = []
    status = 200

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.got.append((self.path, headers, body))
        self.send_response(self.status)
        self.send_header("location", "http://127.0.0.1:1/")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


class Dripping(socketserver.StreamRequestHandler):
    """Sends its first line in pieces, each well within any time for one."""

    stopped = threading.Event()

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while not self.stopped.wait(0.05):
                self.wfile.write(b"H")


class Smtp(socketserver.StreamRequestHandler):
    """Takes mails as a server of RFC 5321 does; `refused@...` is nobody."""

    got: ClassVar[list[bytes]] = []

    def handle(self) -> None:
        self.say("220 here")
        while line := self.rfile.readline().decode().strip():
            word = line.upper().split(":")[0]
            if word.startswith("EHLO"):
                self.say("250-here", "250 8BITMIME")
            elif word == "DATA":
                self.say("354 go on")
                self.got.append(b"".join(iter(self.rfile.readline, b".\r\n")))
                self.say("250 taken")
            elif word == "RCPT TO" and "refused@" in line:
                self.say("550 nobody of that name")
            elif word == "QUIT":
                self.say("221 bye")
                return
            else:
                self.say("250 fine")

    def say(self, *lines: str) -> None:
        self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())


def test_a_webhook_gets_signed_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hook, "got", [])
    with served(HTTPServer(("127.0.0.1", 0), Hook)) as port:
        hooks = Webhooks(allowed=("127.0.0.1",))
        hooks.send(ALERT, f"http://127.0.0.1:{port}/a?b=c", "key")
        ((path, headers, body),) = Hook.got
        assert path == "/a?b=c"
        assert json.loads(body)["text"] == ALERT.text
        assert json.loads(body)["facts"] == {"name": "tune"}
        digest = hmac.new(b"key", body, hashlib.sha256).hexdigest()
        assert headers[SIGNATURE] == f"sha256={digest}"
        for status in (302, 500):
            monkeypatch.setattr(Hook, "status", status)
            with pytest.raises(NotDelivered, match=f"answered {status}"):
                hooks.send(ALERT, f"http://127.0.0.1:{port}/", "")
        assert len(Hook.got) == 3  # redirects are not followed
    with pytest.raises(NotDelivered, match="refused"):
        hooks.send(ALERT, f"http://127.0.0.1:{port}/", "")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "169.254.169.254",
        "0.0.0.0",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
    ],
)
def test_no_webhook_leads_to_this_host_unless_it_is_allowed(host: str) -> None:
    with pytest.raises(NotDelivered, match=r"this host or its link|not known|resolution"):
        Webhooks().send(ALERT, f"http://{host}:1/", "")
    with pytest.raises(NotDelivered, match=r"not among the hosts|not known|resolution"):
        Webhooks(allowed=("hooks.example.com",)).send(ALERT, f"http://{host}:1/", "")


def test_a_server_that_never_ends_its_answer_is_left_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("karez.drivers.webhooks.TIMEOUT_S", 0.3)
    with served(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Dripping)) as port:
        with pytest.raises(NotDelivered):
            Webhooks(allowed=("127.0.0.1",)).send(ALERT, f"http://127.0.0.1:{port}/", "")
        Dripping.stopped.set()


def test_a_mailbox_gets_a_mail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Smtp, "got", [])
    with served(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Smtp)) as port:
        mail = Mail(server=f"smtp://127.0.0.1:{port}", sender="karez@example.com")
        mail.send(ALERT, "me@example.com", "")
        message = message_from_bytes(Smtp.got[0])
        assert message["To"] == "me@example.com"
        assert message["Message-ID"] == "<a1@karez>"
        payload = message.get_payload(decode=True)
        assert isinstance(payload, bytes)
        assert ALERT.text in payload.decode()
        with pytest.raises(NotDelivered, match="nobody of that name"):
            mail.send(ALERT, "refused@example.com", "")
    with pytest.raises(NotDelivered, match="the mail server"):
        mail.send(ALERT, "me@example.com", "")
    with pytest.raises(NotDelivered, match=r"smtp = smtp://HOST"):
        Mail(server="", sender="k@example.com").send(ALERT, "me@example.com", "")
