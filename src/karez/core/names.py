"""Names that users give to workloads, roles and projects."""

NAME_LIMIT = 63
"""Longest workload name: that of a DNS label (RFC 1035), so names can become host names."""


def check_name(name: str) -> None:
    """Refuse names that could not be a file, a host or a model name.

    Raises:
        ValueError: Empty, too long, or with other characters than a-z, 0-9, `-`, `.` and `_`.
    """
    fine = name and name[0].isalnum() and all(c.isalnum() or c in "-._" for c in name)
    if not fine or not name.isascii() or len(name) > NAME_LIMIT or name != name.lower():
        raise ValueError(
            f"invalid name {name!r}: use a-z, 0-9, '-', '.' and '_', up to {NAME_LIMIT}, "
            "a letter or digit first"
        )
