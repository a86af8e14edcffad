"""Runs the processes of jobs in container images: fetches images, wraps commands, cleans up."""

import os
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from karez.core.containers import (
    PULL_S,
    ContainerProgram,
    ContainerRun,
    exec_command,
    has_command,
    pull_command,
    remove_command,
    run_command,
)
from karez.core.errors import EnvironmentFailed
from karez.core.processes import ProcessSpec
from karez.drivers.container_programs import container_program
from karez.drivers.programs import last_lines, run_program
from karez.drivers.steward.child_processes import inherited
from karez.drivers.steward.environment import cores_of

_QUICK_S = 60.0


class Containers:
    """The images and containers of a node."""

    def __init__(self, orders: Path) -> None:
        """Fetch nothing yet; `orders` is a folder in memory that only root may enter."""
        self._orders = orders
        self._lock = threading.Lock()
        self._pulls: dict[str, _Pull] = {}

    def fetch(
        self, image: str, is_given_up: Callable[[], bool], on_fetching: Callable[[], None]
    ) -> None:
        """Have an image on this host, fetched first if need be.

        Args:
            image: Reference to the image.
            is_given_up: Whether the caller waits no more; fetching goes on for others.
            on_fetching: Called if it has to be fetched.

        Raises:
            EnvironmentFailed: There is no program for images, or the image cannot be fetched.
        """
        program = _program(image)
        if program == ContainerProgram.APPTAINER:
            return  # it fetches and caches by itself
        if run_program(has_command(program, image), _QUICK_S)[0] == 0:
            return
        on_fetching()
        with self._lock:
            pull = self._pulls.get(image)
            if pull is None or pull.done.is_set():
                pull = self._pulls[image] = _Pull(program, image)
        while not pull.done.wait(0.1):
            if is_given_up():
                return
        if pull.problem:
            raise _failed(image, pull.problem)

    def wrap(
        self, order: dict[str, Any], spec: ProcessSpec, folders: Sequence[Path]
    ) -> dict[str, Any]:
        """The order to a fork server, its command run in the image of the process, if it has one.

        Podman and Docker make the container, so they run outside of the sandbox, as root where the
        agent does: nothing of the job's is in their own environment then.

        Raises:
            EnvironmentFailed: A variable cannot be passed on.
        """
        if not spec.image:
            return order
        program, is_isolated = _program(spec.image), order["user"] != 0
        is_inside = program == ContainerProgram.APPTAINER
        user = order["user"] or os.getuid()
        variables = {n: v for n, v in order["env"].items() if n not in _OF_THE_HOST}
        by_file = is_isolated and not is_inside
        run = ContainerRun(
            program=program,
            image=spec.image,
            name=name_of(spec.key),
            folders=[str(folder) for folder in folders if folder.exists()],
            cwd=order["cwd"],
            variables=() if by_file else list(variables),
            variables_file=str(self._write(spec, variables)) if by_file else "",
            command=spec.command,
            grant=spec.grant,
            cores=cores_of(spec.grant),
            user=f"{user}:{order['user'] or os.getgid()}" if user else "",
            is_isolated=is_isolated,
        )
        wrapped = {**order, "command": list(run_command(run))}
        return _outside(wrapped) if by_file else wrapped

    def _write(self, spec: ProcessSpec, variables: Mapping[str, str]) -> Path:
        """Write the variables of a process to a file for the program that runs its image."""
        broken = [name for name, value in variables.items() if "\n" in value]
        if broken:
            detail = f"the variable {broken[0]} has a line break, which no container can be given"
            raise _failed(spec.image, detail)
        lines = "".join(f"{name}={value}\n" for name, value in variables.items())
        path = self._orders / f"{spec.key}.env"
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(lines)
        return path

    def beside(
        self, order: Mapping[str, Any], key: str, command: Sequence[str], *, terminal: bool
    ) -> dict[str, Any]:
        """The order that runs another process in the container of a process."""
        program = _program(key)
        inside = exec_command(program, name_of(key), command, terminal=terminal)
        changed = {**order, "command": list(inside)}
        is_outside = order["user"] != 0 and program != ContainerProgram.APPTAINER
        return _outside(changed) if is_outside else changed

    def remove(self, key: str) -> None:
        """End and remove the container of a process that has ended, if it is still there."""
        (self._orders / f"{key}.env").unlink(missing_ok=True)
        program = container_program()
        if program is not None and program != ContainerProgram.APPTAINER:
            run_program(remove_command(program, name_of(key)), _QUICK_S)


def _outside(order: Mapping[str, Any]) -> dict[str, Any]:
    """The order, for a program of the node's own that runs as the agent does."""
    own = inherited()
    program, *rest = order["command"]
    found = shutil.which(program, path=own["PATH"]) or program
    return {**order, "sandbox": None, "env": own, "command": [found, *rest]}


class _Pull:
    """An image that is being fetched."""

    def __init__(self, program: ContainerProgram, image: str) -> None:
        self.done = threading.Event()
        self.problem = ""
        self._command = pull_command(program, image)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        code, said = run_program(self._command, PULL_S)
        if code != 0:
            self.problem = last_lines(said) or f"{self._command[0]} ended with code {code}."
        self.done.set()


def name_of(key: str) -> str:
    """Name of the container of a process."""
    return f"karez-{key}"


_OF_THE_HOST = ("PATH", "HOME", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "TMPDIR")
"""Variables that mean folders of the host: an image has its own."""


def _program(name: str) -> ContainerProgram:
    program = container_program()
    if program is None:
        detail = "neither podman nor apptainer nor docker runs on this node."
        raise _failed(name, detail)
    return program


def _failed(image: str, detail: str) -> EnvironmentFailed:
    fix = "Correct its name, or load it on the nodes: `podman load` needs no network."
    return EnvironmentFailed(name=f"image {image}", detail=detail, fix=fix)
