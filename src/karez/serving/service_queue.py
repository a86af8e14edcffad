"""The requests of one service: which are sent to its replicas, which wait, what they take. Pure."""

import math
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from karez.core.call_limits import CALL_CLASSES, CallClass
from karez.core.routing import Route
from karez.serving.other_queues import QUEUE_CELLS, OtherQueues
from karez.serving.prefix_affinity import PrefixAffinity
from karez.serving.rows import own_rows
from karez.serving.waiting_line import WaitingLine

QUEUED_PER_SLOT = {CallClass.ONLINE: 8, CallClass.NEAR_LINE: 64, CallClass.OFFLINE: 64}
"""Requests of a class that may wait for each that is answered: about as many answers long they
wait."""
MOST_TIMES = 2
"""How many times as many there may be in all, where callers who have little ask beside one who
fills the queue."""
OFFLINE_PART = 0.75
"""Part of the slots that offline requests may take."""
MAX_SESSIONS = 4096


class Entrant(Protocol):
    """A request."""

    @property
    def priority(self) -> CallClass:
        """Its class."""

    @property
    def caller(self) -> str:
        """Who sends it: the id of its key."""

    def go(self) -> None:
        """Send it to a replica."""


@dataclass(slots=True, kw_only=True, eq=False)
class ServiceQueue:
    """The requests of one service."""

    parallel: int = 1
    replicas: int = 0
    """Ready ones, each of which answers `parallel` requests at once."""
    admitted: int = 0
    refused: int = 0
    begun: int = 0
    """Answers that have begun."""
    late: int = 0
    """Those of them that began later than the target."""
    first_token_s: float | None = None
    """The target, as in a Route."""
    answer_s: float = 1.0
    """How long an answer takes at a replica, on average of late."""
    token_s: float = 0.0
    """The same for each token of an answer; 0: none was seen."""
    answer_tokens: float = 0.0
    _has_seen: bool = False
    bytes_per_token: float = 4.0
    """Of requests of late."""
    others: OtherQueues = field(default_factory=lambda: OtherQueues(own_rows((), QUEUE_CELLS)))
    affinity: PrefixAffinity = field(default_factory=PrefixAffinity)
    _running: set[Entrant] = field(default_factory=set)
    _line: WaitingLine[Entrant] = field(default_factory=WaitingLine)
    _callers: dict[CallClass, Counter[str]] = field(
        default_factory=lambda: {one: Counter() for one in CALL_CLASSES}
    )
    """Requests that run or wait, of each caller that has any."""
    _totals: dict[CallClass, int] = field(default_factory=lambda: dict.fromkeys(CALL_CLASSES, 0))
    _sessions: OrderedDict[str, str] = field(default_factory=OrderedDict)
    """Session -> URL of the replica that has it."""
    _is_pumping: bool = False

    @property
    def slots(self) -> int:
        """Requests that are answered at once, or will be once a replica is ready."""
        return self.parallel * max(1, self.replicas)

    @property
    def running(self) -> int:
        """Requests that are at replicas, or go to the first that is ready."""
        return len(self._running)

    def waiting(self, priority: CallClass) -> int:
        """Requests of a class that wait for a slot."""
        return self._line.count(priority)

    @property
    def demand(self) -> int:
        """Requests for which there should be slots: offline ones make do with what is left."""
        offline = 0 if self.replicas else self.waiting(CallClass.OFFLINE)
        urgent = self.waiting(CallClass.ONLINE) + self.waiting(CallClass.NEAR_LINE)
        return self.running + urgent + offline

    def has_place(self, priority: CallClass, caller: str) -> bool:
        """Whether a caller may add another request.

        One that fills the queue does not keep out others, who may have as many as there would be
        for each if all had the same.
        """
        callers = self._callers[priority]
        total = self._totals[priority] + self.others.waiting(priority)
        most = self.slots * (1 + QUEUED_PER_SLOT[priority])
        if total < most:
            return True
        own = callers[caller]
        return total < most * MOST_TIMES and own < most // (len(callers) + (own == 0))

    def wait_s(self, priority: CallClass) -> float:
        """About how long another request of a class waits for a slot."""
        classes = CALL_CLASSES[: 1 + CALL_CLASSES.index(priority)]
        ahead = sum(self._totals[one] + self.others.waiting(one) for one in classes)
        ahead += self.others.running
        return self.answer_s * max(0, ahead + 1 - self.slots) / self.slots

    def expected_s(self, priority: CallClass, tokens: int | None) -> float | None:
        """About when an answer of so many tokens at most would be whole; None: nothing is known."""
        if not self._has_seen:
            return None
        if not self.token_s:
            return self.wait_s(priority) + self.answer_s
        length = self.answer_tokens if tokens is None else min(tokens, self.answer_tokens)
        return self.wait_s(priority) + self.token_s * length

    def retry_s(self, priority: CallClass) -> int:
        """After how long it makes sense to ask again."""
        return max(1, math.ceil(self.wait_s(priority)))

    def enter(self, one: Entrant) -> None:
        """Send a request to a replica, now or once it is its turn."""
        self._callers[one.priority][one.caller] += 1
        self._totals[one.priority] += 1
        if not self._line.total and self._has_room(one.priority):
            self._run(one)
        else:
            self._line.add(one, one.priority, one.caller)
            self.pump()
        self._tell()

    def leave(self, one: Entrant) -> None:
        """Forget a request that has ended, and send those whose turn it is."""
        if one in self._running:
            self._running.discard(one)
        elif not self._line.remove(one, one.priority, one.caller):
            return
        callers = self._callers[one.priority]
        callers[one.caller] -= 1
        if not callers[one.caller]:
            del callers[one.caller]
        self._totals[one.priority] -= 1
        self.pump()
        self._tell()

    def _tell(self) -> None:
        """Tell the other processes what this one has."""
        if self.others:
            waiting = {each: self._line.count(each) for each in CALL_CLASSES}
            self.others.tell(self.running, waiting, self._caller_count)

    @property
    def _caller_count(self) -> int:
        return sum(map(len, self._callers.values()))

    def look(self) -> None:
        """Send what there is room for since other processes have given up slots."""
        if self._line.total:
            self.pump()
            self._tell()

    def pump(self) -> None:
        """Send the requests for which there is room."""
        if not self._line.total or self._is_pumping:
            return
        self._is_pumping = True
        try:
            for priority in CALL_CLASSES:
                while self._has_room(priority) and (one := self._line.pop(priority)) is not None:
                    self._run(one)
                if self._line.count(priority):
                    break
        finally:
            self._is_pumping = False

    def _has_room(self, priority: CallClass) -> bool:
        if priority == CallClass.ONLINE:  # one more for each replica, which then never idles
            most = self.slots + self.replicas
        else:
            part = OFFLINE_PART if priority == CallClass.OFFLINE else 1.0
            most = max(1, int(self.slots * part))
        if not self.replicas:
            return priority == CallClass.ONLINE
        if not self.others:
            return self.running < most
        return self.others.leave_room(self.running, most, priority, self._caller_count)

    def _run(self, one: Entrant) -> None:
        self._running.add(one)
        one.go()

    def choose(self, blocks: Sequence[int], loads: Mapping[str, int], session: str) -> str:
        """The replica that is asked, of those whose requests are counted in `loads`."""
        known = self._sessions.get(session, "") if session else ""
        if known in loads and loads[known] - min(loads.values()) < self.parallel:
            self.affinity.remember(known, blocks)
            url = known
        else:
            url = self.affinity.choose(blocks, loads)
        if session:
            self._sessions[session] = url
            self._sessions.move_to_end(session)
            if len(self._sessions) > MAX_SESSIONS:
                self._sessions.popitem(last=False)
        return url

    def follow(self, route: Route) -> None:
        """Take in which replicas there are now, and what is asked of them."""
        self.parallel, self.replicas = route.parallel, len(route.urls)
        self.first_token_s = route.first_token_s
        self.affinity.keep_only(route.urls)
        self.pump()
        self._tell()

    def began(self, seconds: float) -> None:
        """Take in how long it took until an answer began."""
        self.begun += 1
        self.late += self.first_token_s is not None and seconds > self.first_token_s

    def saw(self, seconds: float, *, size: int, prompt_tokens: int, answer_tokens: int) -> None:
        """Take in an answer: how long it took, and the bytes of its request."""
        self.answer_s += (seconds - self.answer_s) / (8 if self._has_seen else 1)
        self._has_seen = True
        if answer_tokens:
            is_first = not self.token_s
            self.token_s += (seconds / answer_tokens - self.token_s) / (1 if is_first else 8)
            self.answer_tokens += (answer_tokens - self.answer_tokens) / (1 if is_first else 8)
        if prompt_tokens:
            self.bytes_per_token += (size / prompt_tokens - self.bytes_per_token) / 8
