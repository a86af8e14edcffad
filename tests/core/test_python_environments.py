"""Files of requirements: what nodes can install, and what means something on one machine only."""

import pytest

from karez.core.python_environments import parse_requirements

HASH = "--hash=sha256:" + "0" * 64


def test_packages_are_read_with_comments_and_continued_lines() -> None:
    text = "# ours\nnumpy==2.3.5  # pinned\n\npeft>=0.17 ; python_version < '4'\nurllib3[socks]\n"
    found = parse_requirements("requirements.txt", text)
    assert found.packages == ("numpy==2.3.5", "peft>=0.17 ; python_version < '4'", "urllib3[socks]")
    assert not found.is_locked
    locked = parse_requirements("r.txt", f"a==1 \\\n    {HASH} \\\n    {HASH}\nb==2 {HASH}\n")
    assert (locked.packages, locked.is_locked) == (("a==1", "b==2"), True)
    url = "x @ https://example.com/x-1-py3-none-any.whl"
    assert parse_requirements("r.txt", url).packages == (url,)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("uv.lock", "", "uv export"),
        ("environment.yml", "", "requirements of it"),
        ("requirements.txt", "\n# nothing\n", "lists no packages"),
        ("r.txt", "a==1\n-r more.txt\n", "line 2: -r is not for a node: put all"),
        ("r.txt", "--index-url https://u:p@x/\na\n", "line 1: --index-url .* on the nodes"),
        ("r.txt", "-e .\n", "pip wheel"),
        ("r.txt", "a\n./local\n", "line 2: ./local is a file of this machine"),
        ("r.txt", "a @ file:///x.whl\n", "is a file of this machine"),
        ("r.txt", "--prefer-binary\n", "not understood"),
        ("r.txt", "a b c\n", "no requirement"),
        ("r.txt", f"a==1 {HASH}\nb==2\n", "1 of 2 have no hash"),
    ],
)
def test_what_a_node_cannot_install_is_refused_with_the_line(
    name: str, text: str, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        parse_requirements(name, text)
