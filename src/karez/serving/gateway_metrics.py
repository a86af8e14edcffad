"""The metrics of all processes of a gateway, whichever of them is asked. Pure."""

from collections.abc import Mapping


def merge_metrics(texts: Mapping[int, str]) -> str:
    """One Prometheus text of those of several processes, each line with `process="N"`.

    Args:
        texts: Number of a process -> its metrics, each group of lines below its `# TYPE`.
    """
    groups: dict[str, list[str]] = {}
    for process, text in sorted(texts.items()):
        group: list[str] = []
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                group = groups.setdefault(line, [])
            elif line:
                group.append(_labelled(line, process))
    return "".join("\n".join([kind, *lines]) + "\n" for kind, lines in groups.items())


def _labelled(line: str, process: int) -> str:
    series, _, value = line.rpartition(" ")
    name, brace, labels = series.partition("{")
    rest = f",{labels}" if brace else "}"
    return f'{name}{{process="{process}"{rest} {value}'
