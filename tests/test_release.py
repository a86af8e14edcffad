"""A release folds what changes/ says into CHANGELOG.md, or writes nothing."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools.release import KINDS, Refused, fold, numbers, read_fragment, release

ROOT = Path(__file__).parent.parent
BEFORE = "# Changelog\n\nIn words.\n\n## [Unreleased]\n\n## [0.1.0] - 2026-01-01\n\n- First.\n"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The project's own papers, somewhere else, with one fragment more."""
    for name in ("pyproject.toml", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "changes", tmp_path / "changes")
    (tmp_path / "changes" / "999.md").write_text("### Fixed\n\n- A last thing.\n")
    return tmp_path


def state(folder: Path) -> dict[str, str]:
    return {str(f.relative_to(folder)): f.read_text() for f in folder.rglob("*") if f.is_file()}


def test_the_fragments_of_this_project_become_a_release(copy: Path) -> None:
    said = [f.read_text() for f in (copy / "changes").glob("*.md")]
    done = subprocess.run(
        [
            sys.executable,
            ROOT / "tools" / "release.py",
            "99.0.0",
            "--date",
            "2030-01-02",
            "--root",
            copy,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    text = (copy / "CHANGELOG.md").read_text()
    assert "## [Unreleased]\n\n## [99.0.0] - 2030-01-02\n\n### Added\n\n- " in text
    assert "- A last thing.\n" in text.partition("### Fixed\n\n")[2].partition("\n\n")[0] + "\n"
    for fragment in said:
        for line in fragment.splitlines():
            assert line.startswith("#") or line in text
    assert 'version = "99.0.0"' in (copy / "pyproject.toml").read_text()
    assert list((copy / "changes").glob("*.md")) == []


@pytest.mark.parametrize("version", ["0.0.1", "1.2", "v9.0.0", "9.0.0-rc1", "09.0.0", ""])
def test_a_version_that_is_none_or_goes_back_changes_nothing(copy: Path, version: str) -> None:
    before = state(copy)
    with pytest.raises(Refused):
        release(copy, version, "2030-01-02")
    assert state(copy) == before


def test_a_second_release_needs_something_to_say(copy: Path) -> None:
    release(copy, "98.0.0", "2030-01-02")
    before = state(copy)
    with pytest.raises(Refused, match="nothing to release"):
        release(copy, "99.0.0", "2030-01-03")
    assert state(copy) == before


def test_lines_stand_by_kind_and_releases_newest_first() -> None:
    fragments = {
        "1.md": "- New,\n  on two lines.\n\n### Fixed\n- Mended.\n",
        "2.md": "### Removed\n- Gone.\n### Added\n- More.\n",
    }
    text = fold(BEFORE, fragments, "0.2.0", "2026-02-02")
    assert text == (
        "# Changelog\n\nIn words.\n\n## [Unreleased]\n\n## [0.2.0] - 2026-02-02\n\n"
        "### Added\n\n- New,\n  on two lines.\n- More.\n\n### Removed\n\n- Gone.\n\n"
        "### Fixed\n\n- Mended.\n\n## [0.1.0] - 2026-01-01\n\n- First.\n"
    )
    with pytest.raises(Refused, match="already"):
        fold(text, fragments, "0.2.0", "2026-02-03")


@pytest.mark.parametrize("text", ["", "### Better\n- x\n", "no list\n", "### Fixed\n"])
def test_a_fragment_that_would_be_lost_is_refused(text: str) -> None:
    with pytest.raises(Refused, match=r"3\.md"):
        read_fragment(text, "3.md")


def test_every_fragment_and_every_release_of_this_project_can_be_read() -> None:
    for file in (ROOT / "changes").glob("*.md"):
        assert read_fragment(file.read_text(), file.name)
    text = (ROOT / "CHANGELOG.md").read_text()
    released = re.findall(r"^## \[(\d[^]]*)\] - \d{4}-\d\d-\d\d$", text, re.M)
    assert sorted(released, key=numbers, reverse=True) == released
    assert set(re.findall(r"^### (.+)$", text, re.M)) <= set(KINDS)
