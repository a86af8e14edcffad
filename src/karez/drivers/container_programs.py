"""Which program of this host runs container images, if any."""

import shutil
from functools import cache

from karez.core.containers import ContainerProgram
from karez.drivers.programs import run_program

_ASK_S = 30.0


@cache
def container_program() -> ContainerProgram | None:
    """The first program that is here and answers. Cached: it does not change while a host is up."""
    for program in ContainerProgram:
        found = shutil.which(program)
        question = "version" if program == ContainerProgram.APPTAINER else "info"
        if found is not None and run_program([found, question], _ASK_S)[0] == 0:
            return program
    return None
