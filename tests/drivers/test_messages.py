"""The doors of a node under fuzz: nothing is dropped silently, no thread ends, peers are told."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from karez.core.messages.greetings import ProcessGreeting, Proof, ReplicaGreeting
from karez.core.messages.replicas import Done, ListReplicas, PutReplica, ReplicaList
from karez.core.messages.reports import CommitReport, ReadyReport, TotalStepsReport
from karez.core.messages.wire import PROTOCOL, Message, content, encode
from karez.core.processes import ProcessSpec
from karez.core.workloads import WorkloadId
from karez.drivers.steward.process_table import ProcessTable
from karez.drivers.steward.rank_listener import RankListener
from karez.drivers.steward.replica_server import ReplicaServer, token_of
from karez.transport import framing
from karez.transport.handshake import introduce

JOB, KEY, TOKEN = WorkloadId("job-1"), "job-1.0.1", "t" * 32
GARBAGE: tuple[Any, ...] = (None, -1, 1.5, "", "x" * 5000, [], {}, [[1, 2], {"a": None}], True)


@pytest.fixture
def table(tmp_path: Path) -> ProcessTable:
    made = ProcessTable()
    spec = ProcessSpec(key=KEY, workload=JOB, rank=0, epoch=1, command=("true",))
    made.add(spec, tmp_path)
    process = made.get(KEY)
    assert process is not None
    process.token = TOKEN
    return made


@pytest.fixture
def connect(table: ProcessTable, tmp_path: Path) -> Iterator[Callable[[], socket.socket]]:
    path = str(tmp_path / "s")
    RankListener(table, path)
    opened: list[socket.socket] = []

    def dial() -> socket.socket:
        stream = socket.socket(socket.AF_UNIX)
        stream.settimeout(10)
        stream.connect(path)
        opened.append(stream)
        return stream

    yield dial
    for stream in opened:
        stream.close()


def refusal(stream: socket.socket) -> dict[str, Any]:
    received, _ = framing.receive(stream)
    assert received["type"] == "refusal"
    assert received["why"]
    return received


def greeted(stream: socket.socket) -> socket.socket:
    framing.send_message(stream, ProcessGreeting(key=KEY, token=TOKEN))
    return stream


def spoiled(random: Random, message: Message) -> dict[str, Any]:
    """A message with one thing wrong with it."""
    sent = encode(message)
    name = random.choice(sorted(content(sent)))
    match random.choice(["unknown", "missing", "wrong", "surplus", "untyped"]):
        case "unknown":
            sent["type"] = random.choice(["stood", "", "x" * 9999, 7, None])
        case "missing":
            sent = {key: item for key, item in sent.items() if key not in ("generation", "steps")}
        case "wrong":
            sent[name] = random.choice(["x", ["y"], {"a": 1}])
        case "surplus":
            sent[random.choice(["a", "protocol", "ranks "])] = random.choice(GARBAGE)
        case _:
            del sent["type"]
    return sent


def test_a_rank_that_sends_nonsense_is_told_and_its_next_report_still_counts(
    connect: Callable[[], socket.socket], table: ProcessTable
) -> None:
    stream, random = greeted(connect()), Random(1)
    examples = (
        CommitReport(generation=1, step=1, loss=0.5),
        ReadyReport(generation=1, steps={3: "shm"}),
        TotalStepsReport(steps=9),
    )
    for step in range(200):
        framing.send(stream, spoiled(random, random.choice(examples)))
        refusal(stream)
        framing.send_message(stream, CommitReport(generation=1, step=step, loss=0.5))
    framing.send(stream, {"type": "exit", "code": 0})  # only the node may say so
    assert refusal(stream)["refused"] == "exit"
    events = table.wait({JOB: 0}, 5.0)
    assert [event.data["step"] for event in events] == list(range(200))


@pytest.mark.parametrize(
    "greeting",
    [
        {"type": "process-greeting", "key": KEY, "token": TOKEN, "protocol": PROTOCOL + 1},
        {"type": "process-greeting", "key": KEY, "token": TOKEN, "protocol": "new"},
        {"key": KEY},
        {"type": "process-greeting", "key": KEY, "protocol": PROTOCOL},
        {"type": "process-greeting", "key": KEY, "token": "u" * 32, "protocol": PROTOCOL},
        {"type": "process-greeting", "key": KEY, "token": "\u00fc", "protocol": PROTOCOL},
        {"type": "process-greeting", "key": "job-9.0.1", "token": TOKEN, "protocol": PROTOCOL},
        {"type": "commit", "step": 1},
        {"type": "process-greeting", "token": TOKEN, "protocol": PROTOCOL},
        {"type": "process-greeting", "key": "x" * 5000, "token": TOKEN, "protocol": PROTOCOL},
        {},
    ],
)
def test_who_introduces_itself_wrongly_is_told_why_and_the_listener_goes_on(
    connect: Callable[[], socket.socket], table: ProcessTable, greeting: dict[str, Any]
) -> None:
    stream = connect()
    framing.send(stream, greeting)
    why = refusal(stream)["why"]
    if greeting.get("protocol") != PROTOCOL:
        assert "same release" in why
    assert stream.recv(1) == b""
    framing.send_message(greeted(connect()), TotalStepsReport(steps=3))
    events = table.wait({JOB: 0}, 5.0)
    assert [event.type for event in events] == ["total-steps"]


@pytest.mark.parametrize(
    "raw",
    [
        b"\xff" * 64,
        b"\x05\0\0\0\0\0\0\0[1,2]",
        b"\x04\0\0\0\0\0\0\0nope",
        b"\x02\0\0\0\0\0\0\0\xff\xfe",
        (200_000).to_bytes(4, "little") + bytes(4) + b"[" * 200_000,
        (2**31).to_bytes(4, "little") + bytes(4),
    ],
)
def test_bytes_that_are_no_frame_end_the_connection_with_a_reason(
    connect: Callable[[], socket.socket], raw: bytes
) -> None:
    for stream in (connect(), greeted(connect())):
        stream.sendall(raw)
        assert refusal(stream)["refused"] == "frame"
        assert stream.recv(1) == b""


def test_a_replica_server_refuses_nonsense_and_holds_what_is_right(tmp_path: Path) -> None:
    server, random = ReplicaServer("secret", tmp_path), Random(2)

    def connected() -> socket.socket:
        ours, theirs = socket.socketpair()
        ours.settimeout(10)
        threading.Thread(target=server.serve, args=(theirs,), daemon=True).start()
        return ours

    good = encode(ReplicaGreeting(nonce="n", job="j"))
    for wrong in (
        {**good, "token": "secret"},
        {**good, "protocol": 1},
        {"token": "secret"},
        {},
        {**good, "nonce": "n" * 5000},
    ):
        with connected() as stream:
            framing.send(stream, wrong)
            refusal(stream)
            assert stream.recv(1) == b""
    for token, job in (("secret", "j"), (token_of("secret", "other"), "j"), ("", "j")):
        with connected() as stream, pytest.raises(OSError, match="does not know the job's token"):
            introduce(stream, token, job)
    with connected() as stream:  # who knows no token learns nothing that is one
        framing.send(stream, good)
        framing.receive(stream)
        framing.send_message(stream, Proof(proof="x"))
        assert refusal(stream)["why"] == "wrong token"
    with connected() as stream:
        introduce(stream, token_of("secret", "j"), "j")
        put = PutReplica(job="j", rank=0, step=1)
        for _ in range(100):
            broken = {
                **encode(put),
                random.choice(["rank", "step", "epoch"]): random.choice(GARBAGE[:4]),
            }
            framing.send(stream, broken, b"body")
            refusal(stream)
        framing.send_message(stream, put, b"body")
        assert framing.receive(stream)[0] == json.loads(json.dumps(encode(Done(ok=True))))
        framing.send_message(stream, ListReplicas(job="j", rank=0))
        held = encode(ReplicaList(replicas=((1, True, 0),)))
        assert framing.receive(stream)[0] == json.loads(json.dumps(held))
        framing.send_message(stream, ListReplicas(job="other", rank=0))
        assert "another job" in refusal(stream)["why"]
