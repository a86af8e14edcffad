"""Runs llama.cpp's converter from an unpacked wheel: `python -m ... FOLDER ARGUMENTS`.

The wheel's scripts are newer than the `gguf` that comes with them: eight of its modules name
variants of models that this `gguf` does not know, and so could not be imported at all, with every
older model in them (DeepSeek, GLM, MiniMax, Mistral, Hunyuan). The missing names are added, and a
model that needs one of them is refused by name.
"""

import importlib
import re
import runpy
import sys
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import Any

_NAME = re.compile(r"gguf\.(\w+)\.([A-Z][A-Z0-9_]*)\b")
_FIRST = 1_000_000
"""Number of the first added name: no real one is so large."""


def main() -> None:
    """Add what is missing, and run the converter with its own arguments."""
    tool = Path(sys.argv[1])
    sys.path.insert(0, str(tool))
    missing = add_missing_names(tool)
    sys.argv = [str(tool / "convert_hf_to_gguf.py"), *sys.argv[2:]]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except KeyError as error:
        number = error.args[0] if error.args else None
        if number not in missing:
            raise
        raise SystemExit(
            f"this converter has no table of tensors for {missing[number]}: a newer one may"
        ) from error


def add_missing_names(tool: Path) -> dict[int, str]:
    """Add the names that the scripts use and `gguf` lacks; returns number -> name."""
    gguf = importlib.import_module("gguf")  # the wheel's own
    added: dict[int, str] = {}
    for kind, name in sorted(set(_names_in(tool / "conversion"))):
        owner: Any = getattr(gguf, kind, None)
        if not isinstance(owner, type) or hasattr(owner, name):
            continue
        if issubclass(owner, IntEnum):
            number = _FIRST + len(added)
            added[number] = name
            _add_member(owner, name, number)
        else:
            setattr(owner, name, name.lower())
    return added


def _names_in(folder: Path) -> Iterator[tuple[str, str]]:
    for file in folder.glob("*.py"):
        yield from _NAME.findall(file.read_text(encoding="utf-8"))


def _add_member(owner: type[IntEnum], name: str, number: int) -> None:
    member = int.__new__(owner, number)
    member._name_, member._value_ = name, number
    owner._member_map_[name] = member
    owner._value2member_map_[number] = member
    type.__setattr__(owner, name, member)


if __name__ == "__main__":
    main()
