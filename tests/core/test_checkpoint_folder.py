"""The union of a job's checkpoint folders, from what each of its nodes has."""

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from karez.core.artifacts import FileEntry
from karez.core.checkpoint_folder import FolderListing, merge_listings

Files = Mapping[str, int]
"""Path -> version of the content."""
FOLDERS = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 3))


def entries(files: Files) -> tuple[FileEntry, ...]:
    return tuple(
        FileEntry(path=path, sha256=f"{version:064x}", size_bytes=version)
        for path, version in sorted(files.items())
    )


def versions(files: tuple[FileEntry, ...]) -> Files:
    return {file.path: file.size_bytes for file in files}


def listing(began: Files, now: Files) -> FolderListing:
    return FolderListing(
        files=entries(now),
        changed=frozenset(path for path, version in now.items() if began.get(path) != version),
        removed=frozenset(began.keys() - now.keys()),
    )


def merged(stored: Files, *listings: FolderListing, is_complete: bool = True) -> Files:
    return versions(merge_listings(entries(stored), listings, is_complete=is_complete))


def test_a_node_that_wrote_wins_over_one_that_has_what_it_began_with() -> None:
    first, second = listing({"a": 1}, {"a": 1}), listing({"a": 1}, {"a": 2, "b": 1})
    assert merged({"a": 1}, first, second) == {"a": 2, "b": 1}


def test_of_two_that_wrote_the_one_of_the_lower_rank_wins() -> None:
    assert merged({}, listing({}, {"a": 1}), listing({}, {"a": 2})) == {"a": 1}


def test_a_file_that_one_node_removed_is_gone_unless_another_wrote_it() -> None:
    removed, kept, wrote = listing({"a": 1}, {}), listing({"a": 1}, {"a": 1}), listing({}, {"a": 3})
    assert merged({"a": 1}, kept, removed) == {}
    assert merged({"a": 1}, removed, wrote) == {"a": 3}


def test_what_a_lost_node_had_stored_is_kept() -> None:
    assert merged({"a": 1, "b": 2}, listing({}, {"a": 5}), is_complete=False) == {"a": 5, "b": 2}
    assert merged({"a": 1}, is_complete=False) == {"a": 1}


@given(began=FOLDERS, now=FOLDERS)
def test_one_node_alone_has_the_last_word(began: Files, now: Files) -> None:
    assert merged(began, listing(began, now)) == now


@given(began=FOLDERS, first=FOLDERS, second=FOLDERS)
def test_nothing_written_is_lost_and_nothing_is_made_up(
    began: Files, first: Files, second: Files
) -> None:
    listings = (listing(began, first), listing(began, second))
    union = merged(began, *listings)
    assert listings[0].changed | listings[1].changed <= union.keys()
    assert all(version in (first.get(path), second.get(path)) for path, version in union.items())
