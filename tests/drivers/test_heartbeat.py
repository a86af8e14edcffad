"""A node's pulse: heard, silent, and gone."""

import socket
import threading

from karez.core.messages.greetings import HeartbeatGreeting
from karez.core.messages.wire import PROTOCOL
from karez.drivers.heartbeats import HeartbeatListener
from karez.drivers.steward.heartbeat import HeartbeatServer
from karez.transport import framing
from tests.contracts.gang import until


def test_a_pulse_is_heard_and_its_end_is_noticed_at_once() -> None:
    server = HeartbeatServer("127.0.0.1", "t")
    listener = HeartbeatListener("t", 30.0)
    pulse = listener.follow(server.address)
    until(lambda: len(pulse._gaps) > 5, within_s=10)
    assert not pulse.is_lost()
    pulse.close()
    gone = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{gone.getsockname()[1]}"
    gone.close()
    refused = listener.follow(address)
    until(refused.is_lost, within_s=10)  # long before it would count as silent
    refused.close()
    listener.close()
    server.stop()


def test_a_node_that_says_nothing_is_lost_after_the_limit() -> None:
    silent = socket.create_server(("127.0.0.1", 0))  # its kernel answers, and nobody else
    listener = HeartbeatListener("t", 0.2)
    pulse = listener.follow(f"127.0.0.1:{silent.getsockname()[1]}")
    assert not pulse.is_lost()
    until(pulse.is_lost, within_s=10)
    listener.close()
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
    listener = HeartbeatListener("wrong", 0.5)
    pulse = listener.follow(server.address)
    until(pulse.is_lost, within_s=10)
    assert not pulse._gaps
    listener.close()
    server.stop()


def test_one_thread_hears_many_nodes_and_knows_which_one_has_ended() -> None:
    servers = [HeartbeatServer("127.0.0.1", "t") for _ in range(3)]
    gone = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{gone.getsockname()[1]}"
    gone.close()
    before = set(threading.enumerate())
    listener = HeartbeatListener("t", 30.0)
    pulses = [listener.follow(one) for one in [*(server.address for server in servers), address]]
    until(lambda: all(pulse._gaps for pulse in pulses[:3]), within_s=10)
    until(pulses[3].is_lost, within_s=10)
    assert [pulse.is_lost() for pulse in pulses] == [False, False, False, True]
    new = [thread.name for thread in threading.enumerate() if thread not in before]
    assert new.count("heartbeats") == 1
    pulses[0].close()
    until(lambda: pulses[0]._transport is None, within_s=10)
    listener.close()
    for server in servers:
        server.stop()
