"""Names that users give to workloads, artifacts, roles and projects."""

FOLDER_LIMIT = 128
NAME_LIMIT = 63
"""Longest workload name: that of a DNS label (RFC 1035), so names can become host names."""


LABEL_LIMIT = 200
"""Longest name of an artifact, in characters."""


def check_label(name: str, *, limit: int = LABEL_LIMIT) -> None:
    """Refuse names that a terminal, a log or a path could take for something else.

    Raises:
        ValueError: Empty, too long, with `/`, with spaces at an end, or with characters that are
            not printed, such as line breaks and escape codes.
    """
    if not name or len(name) > limit or not name.isprintable() or name != name.strip():
        raise ValueError(f"invalid name {shown(name)}: use up to {limit} printable characters")
    if "/" in name or ":" in name:
        raise ValueError(f"invalid name {shown(name)}: '/' and ':' separate projects from names")


def as_label(text: str, *, limit: int = LABEL_LIMIT) -> str:
    """A name that `check_label` accepts, as near to a text as can be."""
    safe = "".join(char if char.isprintable() and char not in "/:" else "-" for char in text)
    return safe[:limit].strip() or "unnamed"


def check_folder_name(name: str) -> None:
    """Refuse names that could lead out of the folder that they are laid out in.

    Raises:
        ValueError: As `check_label`; or `.` or `..`, or with a backslash.
    """
    check_label(name, limit=FOLDER_LIMIT)
    if name in (".", "..") or "\\" in name:
        raise ValueError(f"invalid name {shown(name)}: it has to be the name of a folder")


def split_name(name: str) -> tuple[str, str]:
    """The project and the name of `PROJECT/NAME`; of a name alone, an empty project.

    In the path of a URL, where `/` would end a part, it is written `PROJECT:NAME`.
    """
    for separator in "/:":
        project, found, rest = name.partition(separator)
        if found:
            return project, rest
    return "", name


def safe_name(name: str) -> str:
    """The name if `check_name` accepts it, else `unreadable`."""
    try:
        check_name(name)
    except ValueError:
        return "unreadable"
    return name


def printable(text: str, *, limit: int | None = None) -> str:
    """A text whose characters do nothing to a terminal: an escape for each that is not printed."""
    cut = text if limit is None or len(text) <= limit else f"{text[:limit]}..."
    if cut.isprintable():
        return cut
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in cut
    )


def shown(name: str) -> str:
    """A name in quotes, cut, with an escape for each character that is not printed."""
    return repr(name if len(name) <= NAME_LIMIT else f"{name[:NAME_LIMIT]}...")


def check_name(name: str) -> None:
    """Refuse names that could not be a file, a host or a model name.

    Raises:
        ValueError: Empty, too long, or with other characters than a-z, 0-9, `-`, `.` and `_`.
    """
    fine = name and name[0].isalnum() and all(c.isalnum() or c in "-._" for c in name)
    if not fine or not name.isascii() or len(name) > NAME_LIMIT or name != name.lower():
        raise ValueError(
            f"invalid name {shown(name)}: use a-z, 0-9, '-', '.' and '_', up to {NAME_LIMIT}, "
            "a letter or digit first"
        )
