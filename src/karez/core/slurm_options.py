"""Options of Slurm's sbatch: which are understood, which do nothing, how values are written. Pure.

Source: sbatch(1) of Slurm 25.05, https://slurm.schedmd.com/sbatch.html.
"""

import re
from collections.abc import Mapping
from typing import Final

from karez.core.devices import DeviceKind

SHORT: Final[Mapping[str, str]] = {
    "A": "account",
    "a": "array",
    "C": "constraint",
    "c": "cpus-per-task",
    "D": "chdir",
    "d": "dependency",
    "e": "error",
    "G": "gpus",
    "J": "job-name",
    "N": "nodes",
    "n": "ntasks",
    "o": "output",
    "p": "partition",
    "q": "qos",
    "t": "time",
    "w": "nodelist",
    "x": "exclude",
}
"""Letter -> long name."""
FLAGS: Final = frozenset({"requeue", "no-requeue", "exclusive", "parsable", "wait", "overcommit"})
"""Options without a value of their own."""
_LOGS = "read the output with `karez logs JOB`"
_QUEUE = "there is one queue; see `karez jobs submit --help` for priority, project and nodes"
NOTED: Final[Mapping[str, str]] = {
    "output": _LOGS,
    "error": _LOGS,
    "open-mode": _LOGS,
    "partition": _QUEUE,
    "qos": _QUEUE,
    "nice": _QUEUE,
    "comment": "it is only a remark",
    "hint": "cores are granted whole",
    "cpu-bind": "cores are granted whole",
    "mail-type": "nobody is sent a mail by a script",
    "mail-user": "nobody is sent a mail by a script",
    "parsable": "print JSON with --json",
    "wait": "wait with --watch",
    "no-requeue": "a job is restarted only where it says so",
}
"""Options that change nothing here -> what to use instead."""
REFUSED: Final[Mapping[str, str]] = {
    "constraint": "name the model of the device (--gres=gpu:MODEL:N), or nodes by label with --on",
    "exclusive": "ask for all cores, memory and devices of a node",
    "begin": "submit the job later",
    "deadline": "give `--deadline 8h` to `karez jobs submit`",
    "reservation": "plan with `karez pool maintenance`, or give the job a priority",
    "signal": "set --time; a job is asked to end before it is ended",
    "overcommit": "ask for fewer cores for each task",
    "licenses": "there are none",
    "cluster-constraint": "there is one cloud",
    "gpus-per-socket": "say --gpus-per-task",
    "container": "there is no image of the site here",
}
"""Options that cannot be left out silently -> the way."""
_TIME: Final = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")
_MEMORY: Final = re.compile(r"(\d+)([KMGT]?)B?", re.IGNORECASE)
_GRES: Final = re.compile(r"(?:gres/)?(gpu|npu)(?::([A-Za-z][\w.-]*))?(?:[:=](\d+))?")
_HOSTS: Final = re.compile(r"([\w.-]+)(?:\[([^\]]+)\]([\w.-]*))?")
MAX_HOSTS: Final = 100_000
_GPUS: Final = re.compile(r"(?:([A-Za-z][\w.-]*):)?(\d+)")


def parse_count(text: str) -> int:
    """Read a number above 0. Raises ValueError."""
    if not text.isdecimal() or not int(text):
        raise ValueError("this should be one number above 0")
    return int(text)


def parse_time(text: str) -> float | None:
    """Read MINUTES, MINUTES:SECONDS, H:M:S, DAYS-HOURS, DAYS-H:M or DAYS-H:M:S; None: no limit."""
    if text.upper() in ("UNLIMITED", "INFINITE", "0"):
        return None
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError("this should be like 90, 30:00, 12:00:00 or 2-12:00:00")
    days, *parts = (int(part) if part else None for part in match.groups())
    given = [part for part in parts if part is not None]
    if days is not None:  # hours come first
        hours, minutes, seconds = (*given, 0, 0)[:3]
    elif len(given) == 3:
        hours, minutes, seconds = given
    else:  # minutes come first
        hours, (minutes, seconds) = 0, (*given, 0)[:2]
    return float(((days or 0) * 24 + hours) * 3600 + minutes * 60 + seconds)


def parse_memory(text: str) -> int:
    """Bytes of `4G`, `512M`, or of plain megabytes, all binary. Raises ValueError."""
    match = _MEMORY.fullmatch(text)
    if match is None:
        raise ValueError("this should be like 4096 (megabytes), 512M or 32G")
    return int(match[1]) << {"K": 10, "": 20, "M": 20, "G": 30, "T": 40}[match[2].upper()]


def parse_gres(text: str) -> tuple[DeviceKind, str, int]:
    """Kind, model (empty: any) and number of `gpu`, `gpu:2`, `gpu:a100:2` or `npu:8`."""
    match = _GRES.fullmatch(text)
    if match is None:
        raise ValueError("this should be like gpu:2, gpu:a100:2 or npu:8")
    return DeviceKind(match[1]), match[2] or "", int(match[3] or 1)


def parse_gpus(text: str) -> tuple[DeviceKind, str, int]:
    """Kind, model (empty: any) and number of `2`, `a100:2` or `npu:2`."""
    if _GRES.fullmatch(text):
        return parse_gres(text)
    match = _GPUS.fullmatch(text)
    if match is None:
        raise ValueError("this should be like 2, a100:2 or npu:2")
    return DeviceKind.GPU, match[1] or "", int(match[2])


def parse_hosts(text: str) -> tuple[str, ...]:
    """Names of a list such as `login,node[01-04,07]`. Raises ValueError."""
    names: list[str] = []
    for part in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", text):
        match = _HOSTS.fullmatch(part)
        if match is None:
            raise ValueError("this should be like node1,node[01-04,07]")
        if match[2] is None:
            names.append(match[1])
            continue
        for numbers in match[2].split(","):
            first, _, last = numbers.partition("-")
            if not first.isdecimal() or not (last or first).isdecimal():
                raise ValueError("this should be like node1,node[01-04,07]")
            count = range(int(first), int(last or first) + 1)
            if len(count) + len(names) > MAX_HOSTS:
                raise ValueError(f"more than {MAX_HOSTS:,} nodes")
            names += [f"{match[1]}{number:0{len(first)}}{match[3]}" for number in count]
    return tuple(names)
