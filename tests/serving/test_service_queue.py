"""Whose turn it is: classes, callers, sessions, and what is expected of an answer."""

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from karez.core.call_limits import CALL_CLASSES, CallClass
from karez.core.routing import Route
from karez.serving.service_queue import ServiceQueue

ONLINE, NEAR_LINE, OFFLINE = CALL_CLASSES
URLS = ("http://a", "http://b")


def ready(parallel: int, urls: tuple[str, ...]) -> Route:
    return Route(service="chat", project="p", urls=urls, parallel=parallel, first_token_s=0.5)


@dataclass(eq=False)
class One:
    """A request that notes when it is sent."""

    sent: list["One"]
    caller: str = "a"
    priority: CallClass = ONLINE

    def go(self) -> None:
        self.sent.append(self)


@dataclass
class Room:
    """A queue, and what was sent of it."""

    parallel: int = 2
    urls: tuple[str, ...] = URLS[:1]
    sent: list[One] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.queue = ServiceQueue()
        self.queue.follow(ready(self.parallel, self.urls))

    def enter(self, caller: str = "a", priority: CallClass = ONLINE) -> One:
        one = One(self.sent, caller, priority)
        self.queue.enter(one)
        return one

    def end(self, one: One) -> None:
        self.sent.remove(one)
        self.queue.leave(one)


def test_one_who_sends_many_keeps_nobody_waiting_for_all_of_them() -> None:
    room = Room()
    for _ in range(16):
        room.enter("many")
    room.enter("few")
    room.enter("few")
    served: list[str] = []
    while room.sent:
        room.end(room.sent[0])
        served += [one.caller for one in room.sent[-1:]]
    assert served[:4] == ["many", "few", "many", "few"]


def test_an_earlier_class_waits_for_no_later_one() -> None:
    room = Room(parallel=4)
    offline = [room.enter(priority=OFFLINE) for _ in range(9)]
    near = [room.enter(priority=NEAR_LINE) for _ in range(9)]
    assert room.sent == [*offline[:3], near[0]]  # a quarter of the slots is not for offline ones
    online = [room.enter() for _ in range(9)]
    assert room.sent[4:] == online[:1]  # one more than slots, so that no replica idles
    for one in room.sent.copy():
        room.end(one)
    assert room.sent == online[1:6]
    for one in online[1:]:
        room.end(one)
    assert room.sent == near[1:5]
    for one in near[1:]:
        room.end(one)
    assert room.sent == offline[3:6]


def test_a_caller_with_little_finds_a_place_beside_one_who_fills_the_queue() -> None:
    room = Room(parallel=1)
    for _ in range(9):
        assert room.queue.has_place(ONLINE, "many")
        room.enter("many")
    assert not room.queue.has_place(ONLINE, "many")
    entered = 0
    while room.queue.has_place(ONLINE, "few"):
        room.enter("few")
        entered += 1
    assert entered == 9 // 2
    for number in range(100):  # and there is an end to it
        if room.queue.has_place(ONLINE, f"caller {number}"):
            room.enter(f"caller {number}")
    assert room.queue.demand == 18


def test_while_no_replica_is_ready_online_requests_are_held_and_others_wait_in_line() -> None:
    room = Room(urls=())
    online = [room.enter() for _ in range(5)]
    later = [room.enter(priority=OFFLINE), room.enter(priority=NEAR_LINE)]
    assert room.sent == online
    assert room.queue.demand == 7  # so that a replica is started for them
    for one in online:
        room.end(one)
    room.queue.follow(ready(2, URLS))
    assert room.sent == later[::-1]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(CALL_CLASSES), st.sampled_from("abc")),
        st.integers(0, 30),
        st.sampled_from([(), URLS[:1], URLS]),
    ),
    max_size=80,
)


@given(steps=STEPS)
def test_each_request_is_sent_once_and_no_slot_is_free_while_one_waits(
    steps: list[tuple[CallClass, str] | int | tuple[str, ...]],
) -> None:
    room = Room()
    entered: list[One] = []
    ended: set[One] = set()
    for step in steps:
        if isinstance(step, int):
            if live := [one for one in entered if one not in ended]:
                one = live[step % len(live)]
                ended.add(one)
                if one in room.sent:
                    room.end(one)
                else:
                    room.queue.leave(one)
        elif step and isinstance(step[0], CallClass):
            entered.append(room.enter(str(step[1]), step[0]))
        else:
            room.queue.follow(ready(2, tuple(str(url) for url in step)))
        assert max(Counter(room.sent).values(), default=0) <= 1
        assert not ended & set(room.sent)
        waiting = [one for one in entered if one not in ended and one not in room.sent]
        assert {one: room.queue.waiting(one) for one in CALL_CLASSES} == {
            one: sum(item.priority == one for item in waiting) for one in CALL_CLASSES
        }
        slots = room.queue.slots
        if room.queue.replicas and room.queue.running < max(1, int(slots * 0.75)):
            assert not waiting  # no slot is free while somebody waits


def test_a_session_stays_with_its_replica_unless_that_is_much_busier() -> None:
    queue = ServiceQueue()
    queue.follow(ready(4, URLS))
    first = queue.choose([], dict.fromkeys(URLS, 0), "talk")
    (other,) = set(URLS) - {first}
    assert queue.choose([], {first: 3, other: 0}, "talk") == first
    assert queue.choose([], {first: 3, other: 0}, "") == other
    assert queue.choose([], {first: 4, other: 0}, "talk") == other
    assert queue.choose([], {first: 0, other: 0}, "talk") == other  # where it went
    assert queue.choose([], {first: 0}, "talk") == first  # the other is gone


def test_what_an_answer_takes_is_learnt() -> None:
    room = Room()
    assert room.queue.expected_s(ONLINE, 10) is None
    for _ in range(50):
        room.queue.saw(2.0, size=300, prompt_tokens=100, answer_tokens=40)
    assert room.queue.bytes_per_token == pytest.approx(3.0, rel=0.01)
    assert room.queue.expected_s(ONLINE, 10) == pytest.approx(0.5, rel=0.01)
    assert room.queue.expected_s(ONLINE, None) == pytest.approx(2.0, rel=0.01)
    for _ in range(6):
        room.enter()
    assert room.queue.expected_s(ONLINE, 10) == pytest.approx(5.5, rel=0.02)
    assert room.queue.retry_s(ONLINE) == 5


def test_answers_that_begin_later_than_the_target_are_counted() -> None:
    queue = ServiceQueue()
    queue.began(9.0)  # there is no target yet
    queue.follow(ready(2, URLS))
    for seconds in (0.2, 0.5, 0.51, 3.0):
        queue.began(seconds)
    assert (queue.begun, queue.late) == (5, 2)
