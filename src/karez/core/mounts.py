"""What a job sees of its node's files: folders that are hidden, and those that are put back."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A folder or file in the job's view of the file system. Both paths are absolute."""

    target: str
    """Where the job sees it."""
    source: str = ""
    """What it sees there; empty: an empty folder in memory."""
    is_read_only: bool = False
    is_open: bool = False
    """Whether everybody may write into an empty folder, as into /dev/shm."""

    @property
    def is_as_on_node(self) -> bool:
        """Whether it shows what is at this path on the node."""
        return self.source == self.target


def mount_plan(hidden: Iterable[Mount], shown: Iterable[Mount]) -> list[Mount]:
    """Return the mounts to make, outer ones first.

    Args:
        hidden: Mounts over folders of the node whose content no job may see.
        shown: What is put back in them. What is seen without is left out.
    """
    chosen = {PurePath(mount.target): mount for mount in hidden}
    for mount in _by_depth(shown):
        above = _above(chosen, mount)
        is_seen = above is None or above.is_as_on_node
        is_alike = mount.is_read_only == (above is not None and above.is_read_only)
        if not (is_seen and is_alike and mount.is_as_on_node):
            chosen[PurePath(mount.target)] = mount
    return _by_depth(chosen.values())


def bind_mounts(text: str) -> list[Mount]:
    """Read `bind_paths`: folders with commas, `:rw` behind those that jobs may write into.

    Raises:
        ValueError: One is no absolute path.
    """
    found = []
    for word in filter(None, map(str.strip, text.split(","))):
        path = word.removesuffix(":rw").removesuffix(":ro")
        if not PurePath(path).is_absolute() or ".." in PurePath(path).parts:
            raise ValueError(f"bind_paths has {word!r}: write a path such as /data, or /data:rw")
        target = str(PurePath(path))
        found.append(Mount(target=target, source=target, is_read_only=not word.endswith(":rw")))
    return found


def _by_depth(mounts: Iterable[Mount]) -> list[Mount]:
    return sorted(mounts, key=lambda mount: (len(PurePath(mount.target).parts), mount.target))


def _above(chosen: dict[PurePath, Mount], mount: Mount) -> Mount | None:
    """The innermost of the mounts that a mount lies in, or at the place of."""
    path = PurePath(mount.target)
    found = (chosen[one] for one in (path, *path.parents) if one in chosen)
    return next(found, None)


def blocked_at(path: str, modes: Sequence[tuple[str, int]]) -> str:
    """The outermost of the folders above `path` that only its owner may enter; empty: none.

    `modes` are the folders above it, outermost first, and their permission bits.
    """
    return next((folder for folder, mode in modes if folder != path and not mode & 0o001), "")
