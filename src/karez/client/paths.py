"""Names as parts of the paths of URLs."""

from urllib.parse import quote


def in_path(name: str) -> str:
    """A name, or `PROJECT/NAME`, as one part of a URL's path."""
    return quote(name.replace("/", ":", 1), safe=":")
