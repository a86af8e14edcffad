"""Fold `changes/*.md` into CHANGELOG.md and set the version: `python tools/release.py 0.2.0`.

A fragment is a list of lines for users. It may have the headings of keepachangelog.com, such as
`### Fixed`; what stands before the first of them counts as `Added`. Nothing is committed or tagged.
"""

import argparse
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

KINDS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
UNRELEASED = "## [Unreleased]\n"
VERSION = re.compile(r'^version = "(.+)"$', re.M)


class Refused(Exception):
    """A release that cannot be made; its text says why."""


def numbers(version: str) -> tuple[int, ...]:
    """`1.2.3` as numbers (SemVer without suffixes). Raises Refused."""
    if not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", version):
        raise Refused(f"{version!r} should read like 1.2.3")
    return tuple(map(int, version.split(".")))


def read_fragment(text: str, name: str) -> dict[str, list[str]]:
    """The lines of a fragment by kind. Raises Refused."""
    found: dict[str, list[str]] = {}
    kind = KINDS[0]
    for line in text.splitlines():
        if line.startswith("#"):
            kind = line.lstrip("# ").strip()
            if kind not in KINDS:
                raise Refused(f"{name}: {kind!r} should be one of {', '.join(KINDS)}")
        elif line.startswith("- "):
            found.setdefault(kind, []).append(line)
        elif line.strip():
            if not line.startswith("  ") or not found.get(kind):
                raise Refused(f"{name}: {line[:40]!r} belongs to no list; begin it with '- '")
            found[kind][-1] += f"\n{line}"
    if not found:
        raise Refused(f"{name} says nothing")
    return found


def fold(changelog: str, fragments: dict[str, str], version: str, date: str) -> str:
    """The changelog with one more release on top, in which each fragment's lines stand.

    Args:
        changelog: What CHANGELOG.md says now.
        fragments: File name -> text, in the order of the lines.
        version: Of the release, such as 1.2.3.
        date: Of the release, such as 2026-12-01.

    Raises:
        Refused: No fragment, a version that is there, or a text that is not in this form.
    """
    numbers(version)
    if not fragments:
        raise Refused("changes/ is empty: there is nothing to release")
    if UNRELEASED not in changelog:
        raise Refused(f"CHANGELOG.md has no line {UNRELEASED.strip()!r}")
    if f"## [{version}]" in changelog:
        raise Refused(f"CHANGELOG.md has {version} already")
    read = [read_fragment(text, name) for name, text in fragments.items()]
    parts = [f"## [{version}] - {date}"]
    for kind in KINDS:
        lines = [line for one in read for line in one.get(kind, [])]
        if lines:
            parts.append(f"### {kind}\n\n" + "\n".join(lines))
    before, _, after = changelog.partition(UNRELEASED)
    return f"{before}{UNRELEASED}\n" + "\n\n".join(parts) + f"\n\n{after.lstrip()}".rstrip() + "\n"


def release(root: Path, version: str, date: str) -> None:
    """Write CHANGELOG.md and pyproject.toml under `root` and remove the fragments.

    Raises:
        Refused: As `fold`, or the version is below the one before. Then nothing is written.
    """
    project, changelog = root / "pyproject.toml", root / "CHANGELOG.md"
    found = VERSION.search(project.read_text())
    if found is None:
        raise Refused("pyproject.toml has no version")
    if numbers(version) < numbers(found[1]):
        raise Refused(f"{version} is below {found[1]}, which pyproject.toml has")
    files = sorted((root / "changes").glob("*.md"), key=lambda file: (len(file.stem), file.stem))
    fragments = {file.name: file.read_text() for file in files}
    text = fold(changelog.read_text(), fragments, version, date)
    changelog.write_text(text)
    project.write_text(VERSION.sub(f'version = "{version}"', project.read_text(), count=1))
    for file in files:
        file.unlink()


def main() -> int:
    """0 done, 1 refused, 2 misused."""
    parser = argparse.ArgumentParser(description="Fold changes/*.md into CHANGELOG.md.")
    parser.add_argument("version", help="such as 0.2.0")
    parser.add_argument("--date", default=f"{datetime.now(UTC):%Y-%m-%d}", help="today, in UTC")
    parser.add_argument("--root", type=Path, default=Path(__file__).parent.parent)
    asked = parser.parse_args()
    try:
        release(asked.root, asked.version, asked.date)
    except Refused as refused:
        sys.stderr.write(f"{refused}\n")
        return 1
    sys.stdout.write(f"CHANGELOG.md has {asked.version}; docs/release.md says what comes next\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
