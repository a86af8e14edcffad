"""Batch scripts of Slurm: their `#SBATCH` directives as a job. Pure.

Options are those of Slurm 25.05's sbatch(1), https://slurm.schedmd.com/sbatch.html.
"""

import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from karez.core.dependencies import AfterCondition, Dependency
from karez.core.devices import DeviceKind
from karez.core.gangs import GangSpec, Topology
from karez.core.jobs import JobSpec, Retry
from karez.core.node_affinity import NodeAffinity
from karez.core.resource_requests import ResourceRequest
from karez.core.slurm_options import (
    FLAGS,
    NOTED,
    REFUSED,
    SHORT,
    parse_count,
    parse_gpus,
    parse_gres,
    parse_hosts,
    parse_memory,
    parse_time,
)
from karez.core.units import MILLI
from karez.core.workloads import WorkloadKind

_MARK: Final = "#SBATCH"
_SHELLS: Final = ("bash", "sh")
_NO_SLURM: Final = ("scontrol", "squeue", "sbcast", "sacct", "sbatch", "scancel", "salloc")
_STARTS: Final = r"(?:^|[;&|(`]|\b(?:then|do|else|exec|time)\s)\s*"
"""What stands before the name of a program that is run."""
_SRUN: Final = re.compile(_STARTS + r"srun\b([^;&|)`]*)")
_SRUN_TASKS: Final = re.compile(r"\s(?:-n\s*|--ntasks[= ]\s*)([0-9]+)\b")
_SRUN_NODES: Final = re.compile(r"\s(?:-N|--nodes|--ntasks-per-node|--multi-prog)\b")
# Skips srun's options and runs the command: this process is one of the job's tasks already.
_SRUN_FUNCTION: Final = (
    'srun() { while [ $# -gt 0 ]; do case "$1" in --) shift; break;; --*=*) shift;; '
    "--label|--unbuffered|--exclusive|--overlap|--overcommit|--oversubscribe|--verbose|--quiet|"
    "--pty|--kill-on-bad-exit|--wait|--no-kill|--preserve-env|--hold|--disable-status|"
    "--propagate|--version|--immediate|-[luvQKOkEsXHIVW]) shift;; "
    '--*|-?) shift 2 || return 2;; -*) shift;; *) break;; esac; done; "$@"; }'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmScript:
    """A batch script of Slurm, understood."""

    spec: JobSpec
    folder: str = ""
    """What `--chdir` says; empty: the folder it is submitted from."""
    notes: tuple[str, ...] = ()
    """What the user should know: directives that do nothing here, and what to use instead."""


@dataclass(slots=True)
class _Wanted:
    """The directives of a script, by long name."""

    values: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def read(self, name: str, parse: Callable[[str], Any], default: Any = None) -> Any:
        """The value of a directive. Raises ValueError with its name."""
        if name not in self.values:
            return default
        try:
            return parse(self.values[name])
        except ValueError as error:
            raise ValueError(f"{_MARK} --{name}={self.values[name]}: {error}") from None

    def count(self, name: str, default: int | None = None) -> int | None:
        found: int | None = self.read(name, parse_count, default)
        return found


def is_slurm_script(text: str) -> bool:
    """Whether a file is a script with directives for Slurm, not a TOML job file."""
    return text.startswith("#!") and any(line.startswith(_MARK) for line in text.splitlines())


def parse_slurm_script(text: str, *, name: str, arguments: Sequence[str] = ()) -> SlurmScript:
    """Read a batch script of Slurm as a job.

    Args:
        text: The script.
        name: Name of its file: the job's name if no directive gives one.
        arguments: Words that the script is given.

    Raises:
        ValueError: A directive has no equal here, or is malformed; or the script calls what only
            Slurm has. The message names the line or the directive, and what to write instead.
    """
    shell, flags = _shell(text)
    wanted = _directives(text)
    tasks = _tasks(wanted)
    _check_body(text, tasks)
    job_name = _clean(wanted.values.get("job-name", name))
    command = (shell, *flags, "-c", _with_preamble(text, wanted, job_name), name, *arguments)
    spec = JobSpec(
        name=job_name,
        project=wanted.values.get("account", "default"),
        kind=WorkloadKind.TRAIN if tasks > 1 else WorkloadKind.BATCH,
        command=command,
        array=wanted.values.get("array", ""),
        max_duration_s=wanted.read("time", parse_time),
        after=wanted.read("dependency", _dependencies, ()),
        env=wanted.read("export", _exports, {}),
        retry=Retry(limit=1 if "requeue" in wanted.values else 0),
        gang=_gang(wanted, tasks),
    )
    if tasks > 1:
        wanted.notes.append(
            f"each of the {tasks} tasks runs the script, and srun in it runs its command once"
        )
    return SlurmScript(spec=spec, folder=wanted.values.get("chdir", ""), notes=tuple(wanted.notes))


def _shell(text: str) -> tuple[str, Sequence[str]]:
    """The shell that a script is for, and the flags that it is given."""
    words = text.split("\n", 1)[0].removeprefix("#!").split()
    if words and words[0].endswith("/env"):
        words = [word for word in words[1:] if word != "-S"]
    shell = words[0].rpartition("/")[2] if words else ""
    if shell not in _SHELLS:
        raise ValueError(f"the script is for {shell or 'nothing'}; only bash and sh are understood")
    return shell, words[1:]


def _directives(text: str) -> _Wanted:
    wanted = _Wanted()
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            break  # as in Slurm: what stands behind the first command is a comment
        if line.startswith(_MARK):
            try:
                words = shlex.split(line.removeprefix(_MARK), comments=True)
                _add(wanted, words)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None
    return wanted


def _add(wanted: _Wanted, words: Sequence[str]) -> None:
    left = list(words)
    while left:
        name, value = _option(left)
        if name in REFUSED:
            raise ValueError(f"--{name} has no equal here: {REFUSED[name]}")
        if name in NOTED:
            wanted.notes.append(f"--{name} does nothing here: {NOTED[name]}")
        wanted.values[name] = value


def _option(left: list[str]) -> tuple[str, str]:
    """Take one option off the front: (long name, value). Raises ValueError."""
    word = left.pop(0)
    if word.startswith("--"):
        name, equals, value = word[2:].partition("=")
    elif word.startswith("-") and word[1:2] in SHORT:
        name, value = SHORT[word[1]], word[2:]
        equals = value
    else:
        raise ValueError(f"{word!r} is no option of sbatch")
    if name not in FLAGS and not equals:
        if not left:
            raise ValueError(f"--{name} needs a value")
        value = left.pop(0)
    if name not in {*FLAGS, *NOTED, *REFUSED, *SHORT.values(), *_LONG_ONLY}:
        raise ValueError(f"--{name} is not understood; remove it, or write a job file")
    return name, value


_LONG_ONLY: Final = frozenset(
    {
        *("ntasks-per-node", "gpus-per-task", "gpus-per-node", "gres", "mem", "mem-per-cpu"),
        *("mem-per-gpu", "export"),
    }
)


def _tasks(wanted: _Wanted) -> int:
    """How many tasks the job has."""
    nodes = wanted.count("nodes", 1) or 1
    per_node = wanted.count("ntasks-per-node", 1) or 1
    return wanted.count("ntasks") or nodes * per_node


def _gang(wanted: _Wanted, tasks: int) -> GangSpec:
    nodes = wanted.count("nodes")
    spreads = nodes is not None and nodes > 1 and nodes == tasks
    names = {key: wanted.read(o, parse_hosts) for key, o in _NODES if o in wanted.values}
    if nodes is not None and nodes != tasks:
        wanted.notes.append(f"the {tasks} tasks may be on other than {nodes} nodes")
    return GangSpec(
        min=tasks,
        want=tasks,
        each=(_request(wanted, tasks),),
        topology=Topology.SPREAD if spreads else Topology.ANY,
        among=NodeAffinity(**names),
    )


_NODES: Final = (("on", "nodelist"), ("off", "exclude"))


def _request(wanted: _Wanted, tasks: int) -> ResourceRequest:
    """What one task needs."""
    nodes = wanted.count("nodes", 1) or 1
    cores = wanted.count("cpus-per-task", 1) or 1
    kind, model, devices = _devices(wanted, tasks, nodes)
    memory = wanted.read("mem", parse_memory, 0) * nodes // tasks
    memory = memory or wanted.read("mem-per-cpu", parse_memory, 0) * cores
    memory = memory or wanted.read("mem-per-gpu", parse_memory, 0) * devices
    if not devices:
        return ResourceRequest(milli=cores * MILLI, memory_bytes=memory)
    return ResourceRequest(
        kind=kind,
        milli=devices * MILLI,
        cpu_milli=cores * MILLI,
        memory_bytes=memory,
        models=(model,) if model else (),
    )


def _devices(wanted: _Wanted, tasks: int, nodes: int) -> tuple[DeviceKind, str, int]:
    """Kind, model (empty: any) and number of the devices of one task. Raises ValueError."""
    for name, times in (
        ("gpus-per-task", tasks),
        ("gpus-per-node", nodes),
        ("gres", nodes),
        ("gpus", 1),
    ):
        if name in wanted.values:
            parse = parse_gres if name == "gres" else parse_gpus
            kind, model, count = wanted.read(name, parse)
            if count * times % tasks:
                raise ValueError(
                    f"{_MARK} --{name}={wanted.values[name]}: {count * times} devices cannot be "
                    f"shared out evenly to {tasks} tasks; say --gpus-per-task"
                )
            return kind, model, count * times // tasks
    return DeviceKind.CPU, "", 0


def _check_body(text: str, tasks: int) -> None:
    """Refuse what would do something else here. Raises ValueError."""
    starts_tasks = False
    for number, line in _commands(text):
        for program in _NO_SLURM:
            if re.search(rf"{_STARTS}{program}\b", line):
                raise ValueError(
                    f"line {number}: {program} is Slurm's own and is not here; MASTER_ADDR, "
                    "MASTER_PORT, RANK and WORLD_SIZE are set for each task"
                )
        for match in _SRUN.finditer(line):
            starts_tasks = True
            if re.search(r"\bexec\s+srun\b", match[0]):
                raise ValueError(f"line {number}: srun is a function here; leave out exec")
            if _SRUN_NODES.search(match[1]):
                raise ValueError(
                    f"line {number}: srun cannot share out tasks here; ask for them with {_MARK} "
                    "--ntasks"
                )
            asked = _SRUN_TASKS.search(match[1])
            if asked and int(asked[1]) != tasks:
                raise ValueError(
                    f"line {number}: srun starts {asked[1]} tasks, the job has {tasks}; ask for as "
                    f"many with {_MARK} --ntasks"
                )
    if tasks > 1 and not starts_tasks:
        raise ValueError(
            f"the job has {tasks} tasks, and the script starts none with srun: Slurm would run it "
            "once. Put srun before the command, or ask for one task"
        )


def _commands(text: str) -> Iterator[tuple[int, str]]:
    """(number of its first line, line) of a script without comments, continued lines joined."""
    begun, whole = 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        if not whole and line.lstrip().startswith("#"):
            continue
        begun = begun or number
        whole += line.removesuffix("\\")
        if not line.endswith("\\"):
            yield begun, whole
            begun, whole = 0, ""
    if whole:
        yield begun, whole


def _with_preamble(text: str, wanted: _Wanted, name: str) -> str:
    """The script, its first line (`#!`) replaced, so that errors name the right lines."""
    cores = wanted.count("cpus-per-task")
    variables = {
        "SLURM_JOB_ID": "$KAREZ_JOB",
        "SLURM_PROCID": "$RANK",
        "SLURM_NTASKS": "$WORLD_SIZE",
        **({"SLURM_CPUS_PER_TASK": str(cores)} if cores else {}),
        "SLURM_JOB_NAME": name,
        "SLURM_SUBMIT_DIR": "$PWD",
    }
    exported = " ".join(f'{key}="{value}"' for key, value in variables.items())
    _, _, body = text.partition("\n")
    return f"{_SRUN_FUNCTION}; export {exported}\n{body}"


def _dependencies(text: str) -> tuple[Dependency, ...]:
    kinds = {"afterok": AfterCondition.OK, "afterany": AfterCondition.ANY}
    found = []
    for part in text.split(","):
        kind, _, jobs = part.partition(":")
        if kind not in kinds or not jobs:
            raise ValueError("only afterok:JOB and afterany:JOB are understood, with commas")
        found += [Dependency(job=job, when=kinds[kind]) for job in jobs.split(":")]
    return tuple(found)


def _exports(text: str) -> Mapping[str, str]:
    """Variables that `--export` sets; those it takes over from a shell are not known here."""
    env = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if part in ("ALL", "NONE", "NIL"):
            continue
        if not equals:
            raise ValueError(f"the value of {key} here is not sent; write {key}=VALUE, or a secret")
        env[key] = value
    return env


def _clean(name: str) -> str:
    stem = name.rpartition("/")[2].removesuffix(".sh").removesuffix(".sbatch").lower()
    letters = "".join(c if c.isascii() and (c.isalnum() or c in "-._") else "-" for c in stem)
    return letters.lstrip("-._")[:63] or "job"
