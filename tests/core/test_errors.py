"""Texts of every error, and how errors are pickled and sent."""

import json
import pickle
from pathlib import Path

import pytest

from karez import errors
from karez.core.errors import (
    AccuracyLost,
    AlreadyExists,
    AlreadyRunning,
    AmbiguousName,
    BadRequest,
    BadRow,
    BrokenArtifact,
    DeviceLost,
    DeviceMemoryFull,
    DeviceUnavailable,
    EnvironmentFailed,
    Failed,
    KarezError,
    LimitExceeded,
    MissingPart,
    NotAllowed,
    NotFound,
    NotIsolated,
    NotSignedIn,
    OtherSystem,
    PortTaken,
    ProtocolMismatch,
    QuotaExceeded,
    Remote,
    StartFailed,
    StorageFull,
    TooLarge,
    TooManyRequests,
    TooSlow,
    Unreachable,
    error_from,
    every_error,
)

CORRECT = "Correct it and try again."
WORDS: list[tuple[KarezError, str, str]] = [
    (BadRequest(problem="workers should be a number"), "Workers should be a number.", CORRECT),
    (BadRequest(problem="./x is a folder."), "./x is a folder.", CORRECT),
    (
        BadRequest(problem="--grep is wrong", fix="Say --grep WORD."),
        "--grep is wrong.",
        "Say --grep WORD.",
    ),
    (
        TooLarge(limit_bytes=1024),
        "The body of this request is larger than 1024 bytes.",
        "Upload what is large as an artifact, and name that in the request.",
    ),
    (
        TooSlow(seconds=30),
        "Nothing of this request's body came for 30 seconds.",
        "Send it again, over a better line.",
    ),
    (
        TooManyRequests(limit="100 a second", retry_after_s=2),
        "This key sends too many requests: 100 a second.",
        "Try again in 2 seconds; `requests_per_s` of karez.toml is the limit.",
    ),
    (
        LimitExceeded(project="p", limit="10 queued jobs", asked="11"),
        "Project p may have 10 queued jobs; this would make it 11.",
        "Wait until there is less, or let an admin run `karez projects limits p ...`.",
    ),
    (
        DeviceUnavailable(device="npu", problem="torch_npu is not installed", fix="Install it."),
        "This process was granted npu and cannot open it: torch_npu is not installed.",
        "Install it.",
    ),
    (
        DeviceLost(device="npu:0", problem="error code 507899"),
        "npu:0 stopped working: error code 507899.",
        "`karez doctor` on that node says what its driver reports.",
    ),
    (
        DeviceMemoryFull(device="npu:0", wanted="2.00 GiB", free="1 GiB", total="32 GiB"),
        "npu:0 has no memory for 2.00 GiB: 1 GiB of 32 GiB are free.",
        "Take a smaller batch, gradient checkpointing, or a device with more memory.",
    ),
    (
        NotFound(noun="job", name="tune"),
        "There is no job 'tune' that you may see.",
        "`karez jobs list` shows what there is.",
    ),
    (
        NotFound(noun="dataset", name="rows"),
        "There is no dataset 'rows' that you may see.",
        "`karez data list` shows what there is.",
    ),
    (
        NotFound(noun="project", name="{p}"),
        "There is no project '{p}' that you may see.",
        "`karez projects list` shows what there is.",
    ),
    (
        NotSignedIn(),
        "The API key is missing, unknown or revoked.",
        "Set KAREZ_KEY, or ask an admin for `karez keys create NAME`.",
    ),
    (
        NotAllowed(needed="admin", held="viewer", project="vision"),
        "This needs role admin in project vision; your key is viewer.",
        "Ask an admin for a key with that role: `karez keys create NAME --role ROLE`.",
    ),
    (
        AlreadyExists(noun="project", name="vision"),
        "There is a project 'vision' already.",
        "Choose another name, or remove that one first.",
    ),
    (
        AmbiguousName(noun="job", name="tune", count=2, which="job-1 (running), job-2 (queued)"),
        "2 live jobs are called 'tune': job-1 (running), job-2 (queued).",
        "Give the id of the one that you mean.",
    ),
    (
        QuotaExceeded(project="vision", kind="npu", asked="16", quota="8"),
        "Project vision may hold 8 npu; this asks for 16.",
        "Ask for fewer, or let an admin run `karez projects quota vision ...`.",
    ),
    (
        StorageFull(path="/dev/shm", wanted_bytes=5),
        "There is no room left under /dev/shm; what was being written was removed.",
        "Free some space there, or start with `karez up --home` on a larger disk.",
    ),
    (
        AccuracyLost(name="m", problem="it lost 9%, and 2% is allowed", fix="Take more bits."),
        "m is not accepted: it lost 9%, and 2% is allowed.",
        "Take more bits.",
    ),
    (
        BrokenArtifact(name="m", problem="it is cut short"),
        "m cannot be used: it is cut short.",
        "Fetch or export it again, then import it anew.",
    ),
    (
        BadRow(place="train.jsonl line 3, messages", problem="it is empty", fix="Write one."),
        "train.jsonl line 3, messages: it is empty.",
        "Write one.",
    ),
    (
        Unreachable(what_is_it="karez", address="http://h:1"),
        "karez does not answer at http://h:1.",
        "Start it with `karez up`, or point KAREZ_URL at a running one.",
    ),
    (
        PortTaken(port=7070),
        "Port 7070 is taken by another program.",
        "Stop that program, or choose another with `karez up --port` or `--gateway-port`.",
    ),
    (
        AlreadyRunning(home="/h", pid=12),
        "A cloud already runs from /h (pid 12).",
        "Use it as it is, or stop it with `karez down`.",
    ),
    (
        OtherSystem(needed_for="A node", system="macOS"),
        "A node needs Linux; this is macOS.",
        "Start it on a Linux machine; from here, use it through KAREZ_URL and KAREZ_KEY.",
    ),
    (
        MissingPart(part="Ray", needed_for="karez up", install="pip install 'karez[node]'"),
        "Ray is not installed; karez up needs it.",
        "Install it: pip install 'karez[node]'",
    ),
    (
        EnvironmentFailed(
            name="environment mine", detail="ERROR: No matching distribution found for x==9"
        ),
        "The environment mine is not to be had: ERROR: No matching distribution found for x==9",
        "Correct its requirements; for a node without an index, give the packages as --wheels.",
    ),
    (
        NotIsolated(project="b", other="a", why="the node agent does not run as root"),
        "This node runs jobs of 'a', and cannot keep those of 'b' apart: the node agent does not "
        "run as root.",
        "Run the node agent as root, or set `shared_user = true` if their members trust each "
        "other.",
    ),
    (
        StartFailed(part="control", detail="it ended."),
        "control did not start: it ended.",
        "The files under `logs/` in the state folder say more; `karez doctor` checks the rest.",
    ),
    (
        Failed(noun="job", name="tune", reason="crashed."),
        "The job 'tune' failed: crashed.",
        "Read its last words with `karez logs tune`.",
    ),
    (
        Remote(kind="http", http_status=502, problem="Bad {gateway}.", fix="Ask again."),
        "Bad {gateway}.",
        "Ask again.",
    ),
    (
        ProtocolMismatch(problem="the protocol here is number 2, the other side has 1"),
        "Parts of this cloud run different releases of karez: the protocol here is number 2, the "
        "other side has 1.",
        "`karez --version` shows the release on each host.",
    ),
]


def test_every_error_is_pinned() -> None:
    assert {type(error) for error, _, _ in WORDS} == set(every_error())


@pytest.mark.parametrize(("error", "what", "hint"), WORDS)
def test_the_text_of_an_error(error: KarezError, what: str, hint: str) -> None:
    assert (error.what(), error.hint(), str(error)) == (what, hint, f"{what} {hint}")


@pytest.mark.parametrize("error", [error for error, _, _ in WORDS])
def test_an_error_survives_pickling_and_the_wire(error: KarezError) -> None:
    facts = json.loads(json.dumps(error.facts()))
    for again in (pickle.loads(pickle.dumps(error)), error_from(error.code, facts)):
        assert type(again) is type(error)
        assert again.facts() == error.facts()
        assert str(again) == str(error)


def test_the_manual_has_each_class_and_status() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()
    for error in every_error():
        assert (
            f"| `{error.code}` | `{error.__name__}` | {error.status} | {error.__doc__} |" in manual
        )


def test_an_error_with_unknown_code_or_facts_is_not_rebuilt() -> None:
    assert error_from("teapot", {}) is None
    assert error_from("not-found", {"noun": "job"}) is None
    assert error_from("not-found", {"noun": "job", "name": 7}) is None
    assert error_from("port-taken", {"port": True}) is None


def test_unknown_facts_are_ignored_and_missing_ones_take_their_default() -> None:
    more = error_from("not-found", {"noun": "job", "name": "x", "project": "p"})
    assert isinstance(more, NotFound)
    less = error_from("bad-request", {"problem": "x"})
    assert isinstance(less, BadRequest)
    assert less.fix == CORRECT
    wrong = error_from("bad-request", {"problem": "x", "fix": None})
    assert isinstance(wrong, BadRequest)
    assert wrong.fix == CORRECT


def test_users_import_every_error_from_one_module() -> None:
    assert {error.__name__ for error in every_error()} | {"KarezError"} == set(errors.__all__)
