"""Calls to the node agents of a Ray cluster, with node loss noticed by heartbeat and by silence."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Concatenate, ParamSpec, TypeVar

import ray
from ray.exceptions import GetTimeoutError, RayError
from typing_extensions import override

from karez.core import environment
from karez.core.devices import parse_emulated
from karez.core.errors import ProtocolMismatch, StartFailed
from karez.core.messages.wire import PROTOCOL, protocol_mismatch
from karez.core.nodes import Node, NodeId
from karez.core.ports import NodeEnded, NodeLost, PollAnswer
from karez.core.processes import Cursors, Poll
from karez.drivers.heartbeats import Heartbeat, HeartbeatListener
from karez.drivers.poll_set import HOLD_S, PollSet
from karez.drivers.steward.config import StewardConfig
from karez.drivers.steward.heartbeat import BEAT_S, heartbeat_token
from karez.drivers.steward.steward import Steward

P = ParamSpec("P")
T = TypeVar("T")

NAMESPACE = "karez"
POLLS = 2
"""Polls in a row that a node may leave unanswered; together they last the allowed silence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RayEdge:
    """How to reach the Ray cluster, and the configuration of its node agents."""

    address: str
    steward: StewardConfig
    """A template: node, address and home are filled in for each node."""
    silence_s: float = 4.0
    heartbeat_s: float = 1.0
    """Seconds that the heartbeat of a node with work on it may be silent."""


class RayStewards:
    """The stewards of a Ray cluster, by node: one detached actor on each."""

    def __init__(self, edge: RayEdge) -> None:
        """Start without stewards; `ensure` adds them."""
        self._edge = edge
        self._actors: dict[NodeId, Any] = {}
        self._silent: set[NodeId] = set()
        self._listener = HeartbeatListener(heartbeat_token(edge.steward.token), edge.heartbeat_s)
        self._heartbeats: dict[NodeId, Heartbeat] = {}
        self._lock = threading.Lock()
        self._addresses: dict[NodeId, Any] = {}
        """Node -> the reply that will name the address of its heartbeat."""
        self._polls: PollSet[Any] = PollSet(
            begin=lambda node, cursors: self._actors[node].poll.remote(cursors, HOLD_S),
            ready=_ready,
            limit_s=HOLD_S + edge.silence_s / POLLS,
        )

    def __contains__(self, node: NodeId) -> bool:
        """Whether a node's steward is known."""
        return node in self._actors

    def items(self) -> list[tuple[NodeId, Any]]:
        """Nodes and their actors."""
        return list(self._actors.items())

    def ensure(self, node: NodeId, row: Mapping[str, Any]) -> Any:
        """The actor of a node's steward, started if absent; `row` is the node in `ray.nodes()`."""
        if node in self._actors:
            return self._actors[node]
        labels = row.get("Labels", {})
        config = replace(
            self._edge.steward,
            node=node,
            address=row["NodeManagerAddress"],
            labels={k: v for k, v in labels.items() if not k.startswith("ray.io/")},
        )
        actor = ray.remote(_HostedSteward).options(
            name=f"steward-{row['NodeID'][:16]}",
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_concurrency=64,
            label_selector={"ray.io/node-id": row["NodeID"]},
        )
        self._actors[node] = actor.remote(PROTOCOL, config)
        return self._actors[node]

    def call(
        self,
        node: NodeId,
        method: Callable[Concatenate[Steward, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Call a steward within the allowed silence. Raises NodeLost."""
        return self.call_within(self._edge.silence_s, node, method, *args, **kwargs)

    def ask_within(
        self,
        limit_s: float,
        node: NodeId,
        method: Callable[Concatenate[Steward, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Call a steward as `call_within`; a late answer says nothing about the node."""
        actor = self._actors.get(node)
        if actor is None or node in self._silent:
            raise NodeLost(f"{node} does not answer")
        ref = getattr(actor, method.__name__).remote(*args, **kwargs)
        if not ray.wait([ref], timeout=limit_s)[0]:
            raise NodeLost(f"{node} has not answered for {limit_s} s")
        answer: T = self.answer(node, ref, limit_s)
        return answer

    def call_within(
        self,
        limit_s: float,
        node: NodeId,
        method: Callable[Concatenate[Steward, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Call a steward within a time limit. Raises NodeLost."""
        actor = self._actors.get(node)
        if actor is None:
            raise NodeLost(f"{node} has no steward")
        if node in self._silent:
            raise NodeLost(f"{node} is silent")
        ref = getattr(actor, method.__name__).remote(*args, **kwargs)
        self._wait_while_alive(node, ref, limit_s)
        answer: T = self.answer(node, ref, limit_s)
        return answer

    def poll(self, cursors: Mapping[NodeId, Cursors], wait_s: float) -> dict[NodeId, PollAnswer]:
        """Poll several nodes; those without a heartbeat count as lost. See Fabric."""
        answers: dict[NodeId, PollAnswer] = self._take_lost(cursors)
        self._polls.cover({n: of for n, of in cursors.items() if n not in answers}, _now())
        deadline = _now() + wait_s
        while not answers:
            left_s = max(0.0, deadline - _now())
            for node, ref in self._polls.take_answered(min(left_s, BEAT_S / 2)):
                answers[node] = self._poll_answer(node, ref)
            answers |= self._take_lost(cursors)
            for node in self._polls.take_late(_now()):
                self._silent.add(node)
                answers[node] = NodeLost(f"{node} is silent for {self._polls.limit_s} s")
            if not left_s:
                break
        return answers

    def close(self) -> None:
        """Stop following heartbeats."""
        self._listener.close()

    def _take_lost(self, nodes: Iterable[NodeId]) -> dict[NodeId, PollAnswer]:
        """Nodes that have no agent or no heartbeat; their polls are given up."""
        lost: dict[NodeId, PollAnswer] = {}
        for node in nodes:
            if node not in self._actors:
                lost[node] = NodeLost(f"{node} has no steward")
            elif (heartbeat := self._heartbeat_of(node)) is not None and heartbeat.is_lost():
                self._silent.add(node)
                kind = NodeEnded if heartbeat.has_ended else NodeLost
                lost[node] = kind(f"{node} has no heartbeat")
        for node in lost:
            self._polls.drop(node)
        return lost

    def _poll_answer(self, node: NodeId, ref: Any) -> PollAnswer:
        try:
            answer: Poll = self.answer(node, ref, 0.05)
        except NodeLost as lost:
            return lost
        return answer

    def answer(self, node: NodeId, ref: Any, limit_s: float) -> Any:
        """A steward's answer. Raises NodeLost, and marks the node as silent until it answers."""
        try:
            answer = ray.get(ref, timeout=limit_s)
        except ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error from None
        except GetTimeoutError as error:
            self._silent.add(node)
            raise NodeLost(f"{node} is silent for {limit_s} s") from error
        except RayError as error:
            self._actors.pop(node, None)
            self._drop_heartbeat(node)
            raise NodeLost(f"{node}: {type(error).__name__}") from error
        self._silent.discard(node)
        return answer

    def _heartbeat_of(self, node: NodeId) -> Heartbeat | None:
        """The heartbeat of a node; None while its address is being asked for."""
        with self._lock:
            heartbeat = self._heartbeats.get(node)
        if heartbeat is not None:
            return heartbeat
        if node not in self._addresses:
            self._addresses[node] = self._actors[node].heartbeat.remote()
        if not ray.wait([self._addresses[node]], timeout=0)[0]:
            return None  # until then a missing answer to the poll is what counts
        try:
            address = self.answer(node, self._addresses.pop(node), 0.05)
        except NodeLost:
            return None
        heartbeat = self._listener.follow(address)
        with self._lock:
            self._heartbeats[node] = heartbeat
        return heartbeat

    def _wait_while_alive(self, node: NodeId, ref: Any, limit_s: float) -> None:
        """Wait for an answer while the node has a heartbeat. Raises NodeLost when it has none."""
        deadline = _now() + limit_s
        while not ray.wait([ref], timeout=BEAT_S)[0]:
            with self._lock:
                heartbeat = self._heartbeats.get(node)
            if heartbeat is None or _now() > deadline:
                return
            if heartbeat.is_lost():
                self._silent.add(node)
                raise NodeLost(f"{node} has no heartbeat")

    def _drop_heartbeat(self, node: NodeId) -> None:
        with self._lock:
            heartbeat = self._heartbeats.pop(node, None)
        if heartbeat is not None:
            heartbeat.close()


def _ready(refs: Sequence[Any], wait_s: float) -> Sequence[Any]:
    """The replies that have come, waiting for the first."""
    ray.wait(list(refs), timeout=wait_s)
    answered: Sequence[Any] = ray.wait(list(refs), num_returns=len(refs), timeout=0)[0]
    return answered


class _HostedSteward(Steward):
    """A steward inside a Ray actor: its folder comes from the node's own environment.

    Ray loads this class from the node's own installation, so control's protocol comes beside its
    configuration. Of another protocol only `describe` answers, with the reason.
    """

    def __init__(self, protocol: int, config: StewardConfig) -> None:
        self._mismatch = protocol_mismatch(protocol)
        if self._mismatch:
            return
        read = os.environ.get  # noqa: TID251 - set by `join`
        home = read(environment.NODE_HOME, config.home)
        is_remote = home != config.home
        blobs = replace(config.blobs, folder="") if is_remote else config.blobs
        cpus = int(read(environment.NODE_CPUS, config.cpus))
        emulated = read(environment.NODE_EMULATE)
        npus = config.npus if emulated is None else parse_emulated(emulated)
        super().__init__(replace(config, home=home, blobs=blobs, cpus=cpus, npus=npus))

    @override
    def describe(self) -> Node:
        if self._mismatch:
            raise ProtocolMismatch(problem=self._mismatch)
        return super().describe()


def wait_for_port(address: str, *, within_s: float = 60.0) -> None:
    """Wait until Ray's head listens: Ray's own waiting costs 5 s a try. Raises StartFailed."""
    host, _, port = address.rpartition(":")
    deadline = _now() + within_s
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=1.0).close()
        except OSError as error:
            if _now() > deadline:
                raise StartFailed(part="Ray", detail=f"nothing listens at {address}.") from error
            time.sleep(0.05)  # noqa: TID251 - bounded by the deadline
        else:
            return


def _now() -> float:
    return time.monotonic()  # noqa: TID251 - an edge owns its clock
