"""Writes the generated module: functions of torch.cuda for any device, unchanged on a CPU.

The module contains only what a repository uses. Every function looks up the device when called: a
script may set environment variables that select devices after the import.
"""

import re
from collections.abc import Iterable

from karez.migration.analyze import GENERATED
from karez.migration.rules.tensor_types import TYPES
from karez.migration.shim_templates import (
    AUTOCAST,
    COMPLETE,
    HEAD,
    RAISING,
    SIMPLE,
    autocast_state,
    tensor_type,
)

NAMES = frozenset(
    {"type", "accelerator", "backend", "accelerator_backend", "device", "name"}
    | {*SIMPLE, *RAISING, *TYPES, *AUTOCAST, *COMPLETE}
)


def write_shim(used: Iterable[str]) -> str:
    """Return the text of the generated module. Raises KeyError for an unknown name in `used`."""
    parts = [HEAD.replace("{generated}", GENERATED)]
    for name in sorted(set(used)):
        if name in SIMPLE:
            parts.append(
                f"def {name}(*args, **kwargs):\n"
                f'    """As in torch.cuda; {SIMPLE[name]} on a CPU."""\n'
                f'    return _call("{name}", {SIMPLE[name]}, *args, **kwargs)\n'
            )
        elif name in RAISING:
            parts.append(
                f'def {name}(*args, **kwargs):\n    """As in torch.cuda."""\n'
                f'    return getattr(_module() or torch.cuda, "{name}")(*args, **kwargs)\n'
            )
        elif name in TYPES:
            parts.append(tensor_type(name))
        elif name in AUTOCAST:
            parts.append(autocast_state(name))
        elif name in COMPLETE:
            parts.append(COMPLETE[name].strip() + "\n")
        elif name not in NAMES:
            raise KeyError(name)
    return "\n\n".join(part.rstrip() + "\n" for part in parts)


def used_of(text: str) -> frozenset[str]:
    """Return the names that an existing generated module offers, so that a new one keeps them."""
    return frozenset(re.findall(r"^(?:def|class) (\w+)", text, re.MULTILINE)) & NAMES
