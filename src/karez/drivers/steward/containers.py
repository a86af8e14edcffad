"""Runs the processes of jobs in container images: fetches images, wraps commands, cleans up."""

import os
import threading
from collections.abc import Callable, Sequence
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
from karez.drivers.steward.environment import cores_of

_QUICK_S = 60.0


class Containers:
    """The images and containers of a node."""

    def __init__(self) -> None:
        """Fetch nothing yet."""
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
        self, request: dict[str, Any], spec: ProcessSpec, folders: Sequence[Path]
    ) -> dict[str, Any]:
        """The request to a fork server, its command run in the image of the process.

        Podman and Docker make the container, so the fork server starts them outside of the sandbox.
        """
        user, program = request["user"] or os.getuid(), _program(spec.image)
        is_inside = program == ContainerProgram.APPTAINER
        run = ContainerRun(
            program=program,
            image=spec.image,
            name=name_of(spec.key),
            folders=[str(folder) for folder in folders if folder.exists()],
            cwd=request["cwd"],
            variables=[name for name in request["env"] if name not in _OF_THE_HOST],
            command=spec.command,
            grant=spec.grant,
            cores=cores_of(spec.grant),
            user=f"{user}:{request['user'] or os.getgid()}" if user else "",
            is_isolated=request["user"] != 0,
        )
        sandbox = request["sandbox"] if is_inside else None
        return {**request, "sandbox": sandbox, "command": list(run_command(run))}

    def beside(self, key: str, command: Sequence[str], *, terminal: bool) -> tuple[str, ...]:
        """The command that runs another process in the container of a process."""
        return exec_command(_program(key), name_of(key), command, terminal=terminal)

    def remove(self, key: str) -> None:
        """End and remove the container of a process that has ended, if it is still there."""
        program = container_program()
        if program is not None and program != ContainerProgram.APPTAINER:
            run_program(remove_command(program, name_of(key)), _QUICK_S)


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
