"""Keeps one process of a workload together with all that it starts, and ends them together.

Between the fork server and each process stands a subreaper (prctl(2), PR_SET_CHILD_SUBREAPER): what
the process starts in sessions of its own, or leaves behind by a double fork, becomes a child of the
subreaper when its parent ends. Once the process has ended, so do they. containerd-shim does the
same for containers.
"""

import os
import select
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn

from karez.drivers import linux


def keep(
    start: Callable[[], NoReturn],
    pipe: int,
    parent: int,
    enter: Callable[[], None] = lambda: None,
) -> NoReturn:
    """Fork again, run `start` in the child, and wait for it; then end all that it left.

    Args:
        start: The program of the process.
        pipe: File descriptor to which the process's id is written as the node sees it, and, once
            nobody of it is left, its exit code; each is a line.
        parent: The caller's parent, 0 if it is in another process namespace: all ends with it too.
        enter: Called once the child is there: has this process see the child's processes and files.
    """
    os.setsid()
    become_subreaper()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, lambda *_: _end_at_once())
    die_with_parent(parent, signal.SIGTERM)
    if not _is_read(pipe):
        os._exit(1)
    own = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.close(pipe)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        die_with_parent(own, signal.SIGKILL)
        start()
    os.write(pipe, b"%d\n" % _only_child(pid))
    enter()
    ended, status = 0, 0
    while ended != pid:
        ended, status = os.waitpid(-1, 0)  # also what was left to this process, and has ended
    end_children()
    os.write(pipe, b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def give_up_privileges() -> None:
    """Let no program that this process starts gain rights by its file, as sudo would."""
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)


def become_subreaper() -> None:
    """Have orphans below this process become its children."""
    linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int, number: int) -> None:
    """Have the kernel send this process a signal when its parent ends."""
    linux.prctl(linux.PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it has ended already
        os.kill(os.getpid(), number)


def end_children(keep: Iterable[int] = ()) -> None:
    """Kill this process's children, and theirs as they are left to it, until there are none.

    Processes of `keep` stay.
    """
    kept = frozenset(keep)
    while victims := [pid for pid in children_of(os.getpid()) if pid not in kept]:
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        # in no order: the first process of a namespace ends once all others of it are reaped
        while victims := [pid for pid in victims if os.waitpid(pid, os.WNOHANG)[0] == 0]:
            select.select([], [], [], 0.001)


def children_of(pid: int) -> list[int]:
    """Ids of the children of a process with one thread, ended ones included."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
        return [int(entry) for entry in os.listdir("/proc") if _parent_of(entry) == pid]


def _only_child(pid: int) -> int:
    """The id of this process's only child as /proc has it: `pid`, but in a process namespace."""
    status = Path("/proc/thread-self/status").read_text()
    seen = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[1:]
    if len(seen) == 1:
        return pid
    return next(iter(children_of(int(seen[0]))))


def _is_read(pipe: int) -> bool:
    """Whether somebody has the other end of a pipe."""
    poll = select.poll()
    poll.register(pipe, 0)
    return not any(event & select.POLLERR for _, event in poll.poll(0))


def _parent_of(entry: str) -> int:
    try:
        text = Path(f"/proc/{int(entry)}/stat").read_text()
    except (OSError, ValueError):
        return 0
    return int(text.rpartition(")")[2].split()[1])


def _end_at_once() -> NoReturn:
    end_children()
    os._exit(0)
