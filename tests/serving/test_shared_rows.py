"""What the processes of a gateway share: limits, queues and metrics."""

import multiprocessing
import os
from collections import deque
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from karez.core.call_limits import CallClass, CallLimits
from karez.serving.call_meter import METER_CELLS, CallMeter
from karez.serving.gateway_metrics import merge_metrics
from karez.serving.minute_window import MINUTE_S, STEPS_A_SECOND
from karez.serving.other_queues import QUEUE_CELLS, OtherQueues
from karez.serving.rows import HELD, Rows, no_cells
from karez.serving.shared_rows import SharedRows


def rows(processes: int, cells: int) -> list[Rows]:
    """The rows of each process, in memory."""
    made = [no_cells(cells) for _ in range(processes)]
    return [Rows(one, tuple(other for other in made if other is not one)) for one in made]


def meters(processes: int, limits: CallLimits) -> list[CallMeter]:
    return [CallMeter(limits=limits, rows=one) for one in rows(processes, METER_CELLS)]


STEPS = st.lists(
    st.tuples(st.integers(0, 2), st.one_of(st.floats(0, 0.3), st.floats(0, 40), st.just(0.0))),
    min_size=1,
    max_size=200,
)


@given(most=st.integers(1, 30), steps=STEPS)
def test_all_processes_together_keep_a_limit_and_refuse_nobody_below_it(
    most: int, steps: list[tuple[int, float]]
) -> None:
    each, now, taken = meters(3, CallLimits(requests_per_minute=most)), 1000.0, deque[float]()
    for process, pause in steps:
        now += pause
        wait_s = each[process].take(1, now)
        if wait_s == 0:
            assert sum(at > now - MINUTE_S for at in taken) < most
            taken.append(now)
        else:
            assert sum(at > now - MINUTE_S - 2 / STEPS_A_SECOND for at in taken) >= most
            now += wait_s + 1e-6
            assert each[(process + 1) % 3].take(1, now) == 0, "the wait is long enough"
            taken.append(now)


def test_tokens_that_requests_of_another_process_may_take_count() -> None:
    one, other = meters(2, CallLimits(tokens_per_minute=100))
    assert one.take(70, 10.0) == 0
    assert other.take(40, 10.0) > 0
    one.settle(70, 20, 12.0)
    assert other.take(40, 12.0) == 0
    assert b"x-ratelimit-remaining-tokens: 40\r\n" in one.headers(12.0)


def _hammer(folder: Path, process: int, go: "multiprocessing.synchronize.Barrier") -> None:
    shared = SharedRows(folder, process=process, processes=3)
    meter = CallMeter(
        limits=CallLimits(requests_per_minute=5000), rows=shared.open(("key", "a"), METER_CELLS)
    )
    go.wait(60)
    os._exit(sum(meter.take(1, 1000.0) == 0 for _ in range(5000)) // 25)


def test_processes_that_ask_at_once_take_no_more_than_the_limit(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    go = context.Barrier(3)
    asking = [context.Process(target=_hammer, args=(tmp_path, n, go)) for n in range(3)]
    for one in asking:
        one.start()
    for one in asking:
        one.join(60)
    taken = [one.exitcode for one in asking]
    assert all(each is not None and 0 < each <= 200 for each in taken)
    window = SharedRows(tmp_path, process=0, processes=3).open(("key", "a"), METER_CELLS)
    used = CallMeter(limits=CallLimits(requests_per_minute=5000), rows=window).requests.used(1000.0)
    assert 4950 <= used <= 5000


def test_what_a_process_held_is_given_up_when_it_starts_anew_and_what_it_used_is_not(
    tmp_path: Path,
) -> None:
    limits = CallLimits(requests_per_minute=9, tokens_per_minute=100)
    shared = [SharedRows(tmp_path, process=n, processes=2) for n in range(2)]
    one, other = (
        CallMeter(limits=limits, rows=each.open(("key", "a"), METER_CELLS)) for each in shared
    )
    one.take(80, 5.0)
    assert other.take(30, 5.0) > 0
    SharedRows(tmp_path, process=0, processes=2)
    assert other.take(30, 5.0) == 0
    assert other.requests.used(5.0) == 2


def test_where_no_file_can_be_made_a_process_counts_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = SharedRows(tmp_path, process=0, processes=2)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert shared.open(("key", "a"), METER_CELLS).others == ()


def test_many_names_take_few_files_and_all_processes_find_the_same_rows(tmp_path: Path) -> None:
    shared = [SharedRows(tmp_path, process=n, processes=2) for n in range(2)]
    before = len(os.listdir("/proc/self/fd"))
    names = [("key", str(number)) for number in range(300)]
    for number, name in enumerate(names):
        shared[number % 2].open(name, METER_CELLS).mine[0] = number
    for number, name in enumerate(names):
        assert shared[1 - number % 2].open(name, METER_CELLS).others[0][0] == number
    assert len(os.listdir("/proc/self/fd")) - before < 30
    assert len(list(tmp_path.iterdir())) == 2


def test_a_name_that_was_cut_by_a_kill_is_written_over(tmp_path: Path) -> None:
    one = SharedRows(tmp_path, process=0, processes=2)
    one.open(("key", "a"), METER_CELLS).mine[0] = 7
    with (tmp_path / f"{METER_CELLS}.names").open("ab") as file:
        file.write(b"half a name")
    other = SharedRows(tmp_path, process=1, processes=2)
    other.open(("key", "b"), METER_CELLS).mine[0] = 8
    assert other.open(("key", "a"), METER_CELLS).others[0][0] == 7
    assert one.open(("key", "b"), METER_CELLS).others[0][0] == 8


def test_a_sum_that_a_kill_left_wrong_is_right_again() -> None:
    one, _ = rows(2, METER_CELLS)
    CallMeter(limits=CallLimits(requests_per_minute=2), rows=one).take(1, 10.0)
    one.mine[HELD + 1] = 9  # the sum
    assert CallMeter(limits=CallLimits(requests_per_minute=2), rows=one).take(1, 10.0) == 0


def test_what_is_left_is_told_of_this_minute() -> None:
    one, other = meters(2, CallLimits(requests_per_minute=9))
    assert other.take(1, 10.0) == 0
    assert one.take(1, 3610.0) == 0
    assert b"x-ratelimit-remaining-requests: 8\r\n" in one.headers(3610.0)


def _queues() -> tuple[OtherQueues, OtherQueues]:
    one, other = (OtherQueues(each) for each in rows(2, QUEUE_CELLS))
    return one, other


NOBODY = dict.fromkeys(CallClass, 0)


def test_slots_are_shared_by_callers_where_requests_wait_elsewhere_too() -> None:
    one, other = _queues()
    one.tell(5, {**NOBODY, CallClass.ONLINE: 9}, 3)
    assert not other.leave_room(0, 5, CallClass.ONLINE, 1)  # all slots are taken
    other.tell(0, {**NOBODY, CallClass.ONLINE: 1}, 1)
    one.tell(4, {**NOBODY, CallClass.ONLINE: 9}, 3)
    assert not one.leave_room(4, 5, CallClass.ONLINE, 3)  # it has its three quarters of five
    assert other.leave_room(0, 5, CallClass.ONLINE, 1)
    other.tell(0, NOBODY, 0)
    assert one.leave_room(4, 5, CallClass.ONLINE, 3)


def test_a_class_waits_for_an_earlier_one_of_another_process_and_for_no_later_one() -> None:
    one, other = _queues()
    other.tell(1, {**NOBODY, CallClass.ONLINE: 1}, 1)
    assert not one.leave_room(0, 4, CallClass.NEAR_LINE, 1)
    other.tell(1, {**NOBODY, CallClass.OFFLINE: 7}, 7)
    assert one.leave_room(2, 4, CallClass.NEAR_LINE, 1)


@given(
    most=st.integers(1, 20),
    have=st.lists(st.tuples(st.integers(0, 20), st.integers(1, 9)), min_size=2, max_size=4),
)
def test_a_free_slot_is_never_left_to_nobody(most: int, have: list[tuple[int, int]]) -> None:
    """Where all wait and one more may run, one of them may send it."""
    queues = [OtherQueues(each) for each in rows(len(have), QUEUE_CELLS)]
    for queue, (running, callers) in zip(queues, have, strict=True):
        queue.tell(running, {**NOBODY, CallClass.ONLINE: 1}, callers)
    if sum(running for running, _ in have) < most:
        assert any(
            queue.leave_room(running, most, CallClass.ONLINE, callers)
            for queue, (running, callers) in zip(queues, have, strict=True)
        )


def test_the_metrics_of_all_processes_are_one_text() -> None:
    text = '# TYPE a counter\na 1\n# TYPE b histogram\nb_bucket{le="+Inf"} 2\nb_sum 0.5\n'
    assert merge_metrics({1: "# TYPE a counter\na 7\n", 0: text}).splitlines() == [
        "# TYPE a counter",
        'a{process="0"} 1',
        'a{process="1"} 7',
        "# TYPE b histogram",
        'b_bucket{process="0",le="+Inf"} 2',
        'b_sum{process="0"} 0.5',
    ]


def test_cells_are_whole_numbers_of_64_bits() -> None:
    cells = no_cells(1)
    cells[0] = 10**12
    assert cells[0] == 10**12
