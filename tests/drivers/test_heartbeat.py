"""A node's pulse: heard, silent, and gone."""

import socket

from karez.core.messages.greetings import HeartbeatGreeting
from karez.core.messages.wire import PROTOCOL
from karez.drivers.steward.heartbeat import Heartbeat, HeartbeatServer
from karez.transport import framing
from tests.contracts.gang import until


def test_a_pulse_is_heard_and_its_end_is_noticed_at_once() -> None:
    server = HeartbeatServer("127.0.0.1", "t")
    pulse = Heartbeat(server.address, "t", 30.0)
    until(lambda: len(pulse._gaps) > 5, within_s=10)
    assert not pulse.is_lost()
    pulse.close()
    gone = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{gone.getsockname()[1]}"
    gone.close()
    refused = Heartbeat(address, "t", 30.0)
    until(refused.is_lost, within_s=10)  # long before it would count as silent
    refused.close()
    server.stop()


def test_a_node_that_says_nothing_is_lost_after_the_limit() -> None:
    silent = socket.create_server(("127.0.0.1", 0))  # its kernel answers, and nobody else
    pulse = Heartbeat(f"127.0.0.1:{silent.getsockname()[1]}", "t", 0.2)
    assert not pulse.is_lost()
    until(pulse.is_lost, within_s=10)
    pulse.close()
    silent.close()


def test_control_of_another_release_hears_nothing() -> None:
    server = HeartbeatServer("127.0.0.1", "t")
    host, _, port = server.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as stream:
        framing.send_message(stream, HeartbeatGreeting(token="t", protocol=PROTOCOL + 1))
        assert stream.recv(1) == b""
    with socket.create_connection((host, int(port)), timeout=10) as stream:
        framing.send_message(stream, HeartbeatGreeting(token="t"))
        assert stream.recv(1) == b"."
    server.stop()


def test_who_does_not_know_the_token_hears_nothing() -> None:
    server = HeartbeatServer("127.0.0.1", "t")
    pulse = Heartbeat(server.address, "wrong", 0.5)
    until(pulse.is_lost, within_s=10)
    assert not pulse._gaps
    pulse.close()
    server.stop()
