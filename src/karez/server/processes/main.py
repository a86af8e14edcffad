"""`karezd`: runs one program of a cloud, with settings from file and environment."""

import importlib
import json
import os
import sys

from karez.core.errors import KarezError
from karez.core.parts import missing_part
from karez.core.settings import Settings
from karez.server.processes.settings_file import load_settings

PROGRAMS = {
    "supervise": "supervisor",
    "control": "control",
    "gateway": "gateway",
    "node": "node",
    "backup": "backups",
    "restore": "backups",
    "check-blobs": "blob_check",
    "reset-admin": "admin_reset",
}
"""Program -> its module, which is imported when it runs; its function is `run_PROGRAM`."""
USAGE = f"usage: karezd {' | '.join(PROGRAMS)} [NUMBER]"
INTERRUPTED = 130
"""Exit code after Ctrl-C, as of a shell."""
REPORTING = ("supervise", "backup", "restore", "check-blobs", "reset-admin")
"""Programs whose standard output a command of `karez` reads."""


def main() -> int:
    """Run the program that the command line names. Returns the exit code."""
    try:
        return _main()
    except KeyboardInterrupt:
        return INTERRUPTED
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
    if len(sys.argv) not in (2, 2 + (sys.argv[1:2] == ["gateway"])):
        sys.stderr.write(USAGE + "\n")
        return 2
    try:
        return _run(sys.argv[1], load_settings(), *sys.argv[2:])
    except KarezError as error:
        return _refuse(error)
    except ValueError as error:
        _report({"error": {"code": "bad-settings", "what": str(error), "hint": "Correct it."}})
        return 2


def _asked_for() -> str:
    """The command that a person gave; `karez up` starts the supervisor."""
    program = " ".join(sys.argv[1:2])
    if program in REPORTING:
        return "karez up" if program == "supervise" else f"karez {program}"
    return f"karezd {program}".strip()


def _refuse(error: KarezError) -> int:
    if sys.argv[1:2] and sys.argv[1] in REPORTING:
        problem = {"code": error.code, "what": error.what(), "hint": error.hint()}
        _report({"error": {**problem, "fields": error.facts()}})
    else:
        sys.stderr.write(f"{error.what()}\n{error.hint()}\n")
    return 1


def _run(program: str, settings: Settings, *more: str) -> int:
    if program not in PROGRAMS:
        sys.stderr.write(USAGE + "\n")
        return 2
    module = importlib.import_module(f"karez.server.processes.{PROGRAMS[program]}")
    return int(getattr(module, f"run_{program.replace('-', '_')}")(settings, _report, *more) or 0)


def _report(line: dict[str, object]) -> None:
    """Write one JSON line for the process that started this one, which may have gone."""
    try:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
    except OSError:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for good


if __name__ == "__main__":
    sys.exit(main())
