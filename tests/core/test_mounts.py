"""What a job sees of its node's files."""

from pathlib import PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from karez.core.mounts import Mount, bind_mounts, blocked_at, mount_plan


def shows(*words: str) -> list[Mount]:
    return [Mount(target=one, source=one, is_read_only=True) for one in words]


def hides(*words: str) -> list[Mount]:
    return [Mount(target=one) for one in words]


def test_outer_mounts_come_first_and_what_is_seen_anyway_not_at_all() -> None:
    own = Mount(target="/srv/.karez/jobs/j", source="/srv/.karez/jobs/j")
    plan = mount_plan(
        hides("/srv/.karez", "/srv"), [own, *shows("/srv/py", "/srv/py/lib", "/opt/py")]
    )
    assert [(one.target, bool(one.source)) for one in plan] == [
        ("/srv", False),
        ("/opt/py", True),
        ("/srv/.karez", False),
        ("/srv/py", True),
        ("/srv/.karez/jobs/j", True),
    ]


def test_a_folder_to_write_into_is_shown_in_one_to_read() -> None:
    data, own = shows("/data")[0], Mount(target="/data/out", source="/data/out")
    assert mount_plan([], [own, data]) == [data, own]
    assert mount_plan([], [own]) == []


def test_a_hidden_folder_in_one_that_is_shown_stays_hidden() -> None:
    """Python in a checkout that has the state folder too."""
    plan = mount_plan(hides("/srv", "/srv/app/.karez"), shows("/srv/app"))
    assert [one.target for one in plan] == ["/srv", "/srv/app", "/srv/app/.karez"]


PATHS = st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(
    lambda one: "/" + "/".join(one)
)


@given(st.lists(PATHS, max_size=5), st.lists(PATHS, max_size=5))
def test_what_counts_is_the_innermost(hidden: list[str], shown: list[str]) -> None:
    plan = mount_plan(hides(*hidden), shows(*shown))
    seen = {one.target: bool(one.source) for one in plan}
    for path in {*hidden, *shown}:
        above = [str(one) for one in (PurePath(path), *PurePath(path).parents)]
        wanted = next(one in shown for one in above if one in {*hidden, *shown})
        assert next((seen[one] for one in above if one in seen), True) == wanted
    depths = [len(PurePath(one.target).parts) for one in plan]
    assert depths == sorted(depths)


def test_the_outermost_folder_that_only_its_owner_enters() -> None:
    modes = [("/", 0o755), ("/srv", 0o700), ("/srv/x", 0o700), ("/srv/x/y", 0o755)]
    assert blocked_at("/srv/x/y", modes) == "/srv"
    assert blocked_at("/srv", modes[:2]) == ""
    assert blocked_at("/opt/y", [("/", 0o755), ("/opt", 0o755), ("/opt/y", 0o700)]) == ""


def test_bind_paths_are_read() -> None:
    assert bind_mounts("") == []
    assert bind_mounts("/data, /scratch/:rw ,/a:ro") == [
        *shows("/data"),
        Mount(target="/scratch", source="/scratch"),
        *shows("/a"),
    ]
    for wrong in ("data", "/a/../b", "~/x", "/a,b:rw"):
        with pytest.raises(ValueError, match="bind_paths"):
            bind_mounts(wrong)
