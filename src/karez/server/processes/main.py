"""`karezd`: runs one program of a cloud, with settings from file and environment."""

import json
import os
import sys
from pathlib import Path

from karez.core import environment
from karez.core.errors import KarezError
from karez.core.parts import missing_part
from karez.core.settings import Settings, resolve

USAGE = "usage: karezd supervise | control | gateway | node"


def main() -> int:
    """Run the program that the command line names. Returns the exit code."""
    try:
        return _main()
    except ModuleNotFoundError as error:
        missing = missing_part(error, _asked_for())
        if missing is None:
            raise
        return _refuse(missing)


def _main() -> int:
    import structlog  # noqa: PLC0415 - main() reports a missing extra

    structlog.configure(
        processors=[
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ]
    )
    if len(sys.argv) != 2:
        sys.stderr.write(USAGE + "\n")
        return 2
    try:
        return _run(sys.argv[1], load_settings())
    except KarezError as error:
        return _refuse(error)
    except ValueError as error:
        _report({"error": {"code": "bad-settings", "what": str(error), "hint": "Correct it."}})
        return 2


def _asked_for() -> str:
    """The command that a person gave; `karez up` starts the supervisor."""
    program = " ".join(sys.argv[1:2])
    return "karez up" if program == "supervise" else f"karezd {program}".strip()


def _refuse(error: KarezError) -> int:
    if sys.argv[1:2] == ["supervise"]:  # `karez up` reads what it prints
        problem = {"code": error.code, "what": error.what(), "hint": error.hint()}
        _report({"error": {**problem, "fields": error.facts()}})
    else:
        sys.stderr.write(f"{error.what()}\n{error.hint()}\n")
    return 1


def _run(program: str, settings: Settings) -> int:
    match program:
        case "supervise":
            from karez.server.processes.supervisor import Supervisor  # noqa: PLC0415 - only what is needed

            return Supervisor(settings, _report).run()
        case "control":
            from karez.server.processes.control import run_control  # noqa: PLC0415 - only what is needed

            run_control(settings)
        case "gateway":
            from karez.server.processes.gateway import run_gateway  # noqa: PLC0415 - only what is needed

            run_gateway(settings)
        case "node":
            from karez.server.processes.node import join_request, run_node  # noqa: PLC0415 - only what is needed

            return run_node(join_request())
        case _:
            sys.stderr.write(USAGE + "\n")
            return 2
    return 0


def load_settings() -> Settings:
    """Read karez.toml in the state folder, then the environment. Raises ValueError."""
    home = os.environ.get(environment.HOME, Settings().home)  # noqa: TID251 - one of the two mains
    file = Path(home).expanduser() / "karez.toml"
    text = file.read_text() if file.exists() else ""
    return resolve(text, os.environ, {})[0]  # noqa: TID251 - one of the two mains


def _report(line: dict[str, object]) -> None:
    """Write one JSON line for the process that started this one, which may have gone."""
    try:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
    except OSError:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for good


if __name__ == "__main__":
    sys.exit(main())
