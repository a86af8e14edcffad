"""Who speaks on a node's sockets, and what a state may name (C4, H4, M2)."""

import io
import os
import pickle
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from karez.core.errors import BadRequest, BrokenArtifact
from karez.core.messages.greetings import ProcessGreeting
from karez.core.messages.replicas import Done, PutReplica, ShipSnapshot
from karez.core.messages.reports import ListeningReport, TotalStepsReport
from karez.core.messages.wire import encode
from karez.core.processes import ProcessSpec
from karez.core.workloads import WorkloadId
from karez.drivers.steward import replica_server
from karez.drivers.steward.process_table import ProcessTable
from karez.drivers.steward.rank_listener import RankListener
from karez.drivers.steward.replica_server import ReplicaServer, token_of
from karez.runtime import plain_pickle, training_state
from karez.serving.replica_processes import is_at
from karez.transport import framing
from karez.transport.handshake import introduce

A, B = WorkloadId("job-a"), WorkloadId("job-b")
SECRET = "the nodes' own secret"


def heard_by(server: ReplicaServer) -> socket.socket:
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    threading.Thread(target=server.serve, args=(theirs,), daemon=True).start()
    return ours


def test_a_replica_server_tells_no_secret_to_whom_a_rank_names(tmp_path: Path) -> None:
    """C4: the rank of one job has its state shipped to a listener of its own."""
    server = ReplicaServer(SECRET, tmp_path)
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def listen() -> None:
            peer, _ = listener.accept()
            peer.settimeout(1)
            with peer:
                heard.append(peer.recv(1 << 16))

        thread = threading.Thread(target=listen)
        thread.start()
        put = PutReplica(job=A, rank=0, step=1)
        answer = server._put_at(f"127.0.0.1:{listener.getsockname()[1]}", put, b"state", {})
        thread.join(10)
    assert not answer.ok
    said = b"".join(heard)
    assert b"replica-greeting" in said
    for secret in (SECRET, token_of(SECRET, A), token_of(SECRET, B)):
        assert secret.encode() not in said
    assert b"state" not in said


def test_a_job_reaches_no_state_of_another(tmp_path: Path) -> None:
    server = ReplicaServer(SECRET, tmp_path)
    with heard_by(server) as own:
        introduce(own, token_of(SECRET, B), B)
        framing.send_message(own, PutReplica(job=B, rank=0, step=99), b"b's state")
        assert framing.receive(own)[0]["ok"]
    with heard_by(server) as other:
        introduce(other, token_of(SECRET, A), A)
        ship = ShipSnapshot(job=B, rank=0, step=99, to=("x:1",), limits_bytes=(0,))
        framing.send_message(other, ship)
        assert "another job" in framing.receive(other)[0]["why"]


def test_a_node_without_room_holds_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = ReplicaServer(SECRET, tmp_path)
    monkeypatch.setattr(replica_server, "ROOM_SHARE", 2.0)
    done, _ = server.answer(PutReplica(job=A, rank=0, step=1), bytes(2 << 20), {})
    assert done == Done(ok=False)


def test_who_introduces_itself_for_ever_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("karez.transport.handshake.GREETING_S", 1.5)
    server = ReplicaServer(SECRET, tmp_path)
    silent = [heard_by(server) for _ in range(replica_server.MAX_GREETINGS + 20)]
    is_over = threading.Event()

    silent[0].sendall((4000).to_bytes(4, "little") + bytes(4))  # a frame that never is whole

    def trickle() -> None:
        while not is_over.wait(0.02):
            with suppress(OSError):
                silent[0].sendall(b" ")

    threading.Thread(target=trickle, daemon=True).start()
    with heard_by(server) as stream:
        introduce(stream, token_of(SECRET, A), A)
    for one in silent:
        with suppress(ConnectionResetError):
            assert one.recv(1) == b""
    is_over.set()
    for one in silent:
        one.close()


def test_a_process_speaks_for_itself_alone(tmp_path: Path) -> None:
    """H4: a job says that it is a rank, or an engine, of another project."""
    table = ProcessTable()
    for job in (A, B):
        spec = ProcessSpec(key=f"{job}.0.1", workload=job, rank=0, epoch=1, command=("true",))
        table.add(spec, tmp_path)
    own = table.get(f"{A}.0.1")
    assert own is not None
    path = str(tmp_path / "s")
    RankListener(table, path)
    for report in (TotalStepsReport(steps=4242), ListeningReport(url="http://127.0.0.1:1")):
        with socket.socket(socket.AF_UNIX) as stream:
            stream.settimeout(10)
            stream.connect(path)
            framing.send_message(stream, ProcessGreeting(key=f"{B}.0.1", token=own.token))
            framing.send_message(stream, report)
            assert "not the token" in framing.receive(stream)[0]["why"]
    assert not table.wait({B: 0}, 0.1)
    with socket.socket(socket.AF_UNIX) as stream:
        stream.connect(path)
        framing.send_message(stream, ProcessGreeting(key=f"{A}.0.1", token=own.token))
        for steps in (10**23, -1, "x", float("nan")):
            framing.send(stream, {**encode(TotalStepsReport(steps=1)), "steps": steps})
            assert framing.receive(stream)[0]["type"] == "refusal"
        framing.send(stream, {"type": "commit", "generation": 1, "step": 1, "loss": float("nan")})
        assert "finite" in framing.receive(stream)[0]["why"]


@pytest.mark.parametrize(
    ("url", "is_own"),
    [
        ("http://10.0.0.1:8000", True),
        ("http://10.0.0.1/", True),
        ("http://10.0.0.2:8000", False),
        ("http://10.0.0.1@evil:80", False),
        ("http://10.0.0.1.evil:80", False),
        ("http://user:p@10.0.0.1:80", False),
        ("https://10.0.0.1", False),
        ("file:///etc/passwd", False),
        ("http://[::1", False),
        ("", False),
    ],
)
def test_an_engine_is_on_its_own_node(url: str, is_own: bool) -> None:
    """H4: control would ask, and the gateway send prompts, wherever a process says."""
    assert is_at(url, "10.0.0.1") == is_own


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("evil",)


def test_a_state_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bad = pickle.dumps(((Evil(),), []))
    body = training_state._LENGTH.pack(len(bad)) + bad
    with pytest.raises(BrokenArtifact, match=r"it names posix\.mkdir"):
        training_state._deserialize(body)
    for name in ("system", "load", "hub"):
        text = f"ctorch\n{name}\n.".encode()
        with pytest.raises(BrokenArtifact, match=rf"torch\.{name}"):
            plain_pickle.loads(text, {})
    assert not (tmp_path / "evil").exists()


def test_what_states_hold_comes_back_and_what_they_may_not_is_named() -> None:
    values = {
        "optimizer": {"betas": (0.9, 0.999), 0: [1, None, True], "dtype": torch.bfloat16},
        "numpy": [np.arange(3), np.float32(0.5), np.random.default_rng(1).bit_generator.state],
        "others": {"size": torch.Size([2]), "set": {1, 2}, "bytes": b"x", "complex": 1j},
        "device": torch.device("cpu"),
    }
    again = plain_pickle.loads(plain_pickle.dumps(values, Evil), {})
    assert repr(again) == repr(values)
    for wrong in (Evil, lambda: 1, io.BytesIO(), np.array([object()]), {"x": [object()]}):
        with pytest.raises(BadRequest, match="state_dict"):
            plain_pickle.dumps({"a": wrong}, int)
