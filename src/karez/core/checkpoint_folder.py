"""The folder of a job's own checkpoints, KAREZ_CHECKPOINT_DIR: one per node, and their union. Pure.

A script writes its checkpoints there. The nodes put them into the blob store, and a later attempt
of the job finds the union of what its nodes had, on whatever nodes it runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from karez.core.artifacts import FileEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderListing:
    """The files of the folder on one node, all of them in the blob store."""

    files: tuple[FileEntry, ...] = ()
    """In the order in which they were written."""
    changed: frozenset[str] = frozenset()
    """Paths of files that differ from those with which the node began."""
    removed: frozenset[str] = frozenset()
    """Paths of files with which the node began, and which it has no more."""
    is_settled: bool = True
    """Whether nothing was written lately; if not, the rest of the listing is empty."""


def merge_listings(
    stored: Sequence[FileEntry], listings: Sequence[FolderListing], *, is_complete: bool
) -> tuple[FileEntry, ...]:
    """Return the files of the whole job, those that nodes changed last.

    Where nodes differ, a file that was changed wins over one that was not, and the earlier listing
    over the later one. A file that one node removed and none changed is gone.

    Args:
        stored: The files of the last merge.
        listings: One per node that answered, in the order of its ranks.
        is_complete: Whether every node answered; if not, stored files that nobody lists are kept.
    """
    removed = frozenset[str]().union(*(listing.removed for listing in listings))
    merged: dict[str, FileEntry] = {}
    if not is_complete:
        merged = {entry.path: entry for entry in stored if entry.path not in removed}
    for wants_changed in (False, True):
        for listing in reversed(listings):
            for entry in listing.files:
                is_changed = entry.path in listing.changed
                if is_changed == wants_changed and (is_changed or entry.path not in removed):
                    merged.pop(entry.path, None)  # its place is the last one
                    merged[entry.path] = entry
    return tuple(merged.values())
