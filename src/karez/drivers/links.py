"""Fast links between the devices of a host, as groups of devices. Pure."""

import re
from collections.abc import Iterable

_NPU = re.compile(r"(NPU|Phy-ID)\d+")
"""Head of a line of the matrix that `npu-smi info -t topo` prints."""


def linked_groups(count: int, pairs: Iterable[tuple[int, int]]) -> str:
    """Return the groups of two and more devices that links connect, such as `0-3,4-7`.

    Indices within a group that do not follow one another are joined by `+`: `0+2,1+3`.

    Args:
        count: Devices of the host.
        pairs: Indices of two devices with a link.
    """
    group_of = list(range(count))
    for one, other in pairs:
        kept, dropped = sorted((group_of[one], group_of[other]))
        group_of = [kept if group == dropped else group for group in group_of]
    groups = [[n for n in range(count) if group_of[n] == name] for name in sorted(set(group_of))]
    return ",".join(_shown(members) for members in groups if len(members) > 1)


def _shown(members: list[int]) -> str:
    spans: list[list[int]] = []
    for index in members:
        if spans and spans[-1][1] == index - 1:
            spans[-1][1] = index
        else:
            spans.append([index, index])
    return "+".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)


def parse_npu_topology(text: str) -> str:
    """Return the groups that HCCS connects, from what `npu-smi info -t topo` prints.

    It prints a matrix: a line per NPU, `NPU0 X HCCS PHB ...`, one word per NPU; what follows, such
    as the CPUs near it, is left out. Source: the tool's own legend, `HCCS = Connection traversing
    HCCS`, and the variants `HCCS_SW` (through a switch) and `SIO` (two chips of one NPU).
    """
    rows = [line.split() for line in text.splitlines()]
    matrix = [row[1:] for row in rows if row and _NPU.fullmatch(row[0]) and "X" in row]
    count = len(matrix)
    pairs = [
        (one, other)
        for one, row in enumerate(matrix)
        for other, link in enumerate(row[:count])
        if link in ("HCCS", "HCCS_SW", "SIO")
    ]
    return linked_groups(count, pairs)
