import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from karez.core.artifacts import ArtifactKind, ArtifactSpec, FileEntry, artifact_id
from karez.core.codec import from_json, from_text, to_json, to_text
from karez.core.devices import DeviceKind
from karez.core.errors import KarezError, QuotaExceeded, every_error
from karez.core.gangs import GangSpec
from karez.core.identity import Role, includes
from karez.core.jobfile import parse_job
from karez.core.jobs import JobSpec
from karez.core.resource_requests import ResourceRequest
from karez.core.resource_syntax import parse_resource_request
from karez.core.settings import Settings, resolve
from karez.core.units import parse_bytes, parse_seconds, show_bytes

JOB = """
name = "support-tune"
kind = "train"
command = ["python", "train.py"]
max_duration = "2h"
[gang]
workers = { min = 1, want = 4 }
each = [{ npu = 1, memory = "32GiB" }, { gpu = 1, speed = 0.8 }, { cpu = 2, speed = 0.05 }]
topology = "prefer:supernode"
[recovery]
ladder = ["in-place", "restart"]
"""


def test_a_job_file_is_parsed() -> None:
    spec = parse_job(JOB)
    assert spec.gang.want == 4
    assert spec.gang.each[0] == ResourceRequest(
        kind=DeviceKind.NPU, milli=1000, memory_bytes=32 << 30
    )
    assert spec.max_duration_s == 7200
    assert spec.ladder == ("in-place", "restart")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("nam = 'x'", "unknown key 'nam'"),
        ("name = 'x'\ncommand = ['a']\n[gang]\nworker = 2", "unknown key 'worker'"),
        ("name = 'x'", "either a command or a recipe"),
        ("command = ['a']", "names no workload"),
        ("name = 'X!'\ncommand = ['a']", "invalid name"),
        ("name = 'x'\ncommand = ['a']\n[gang]\neach = [{ tpu = 1 }]", "invalid device kind 'tpu'"),
        ("name = 'x'\ncommand = ['a']\n[gang]\nworkers = { min = 3, want = 1 }", "min <= want"),
        ("name = 'x'\ncommand = ['a']\nmax_duration = 'soon'", "is not a duration"),
        ("name = 'x'\ncommand = ['a']\nexpected_duration = '0s'", "must be positive"),
        ("name = 'x'\ncommand = ['a']\n[gang]\nworkers = 1000000", "more than 100000"),
        ("name = 'x'\ncommand = ['a']\n[gang]\neach = [{ npu = 1000000 }]", "more than any node"),
        ("name = ", "invalid TOML"),
        ("name = 'x'\ncommand = ['a']\nkind = 'serve'", "deploy a service"),
        ("name = 'x'\ncommand = ['a']\n[recovery]\nladder = ['pray']", "no recovery rung 'pray'"),
    ],
)
def test_an_invalid_job_file_is_refused_with_the_place(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_job(text)


def test_a_resource_request_is_read_from_text() -> None:
    assert parse_resource_request("cpu=0.5,memory=2GiB").milli == 500


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("cpu", "'cpu' should read like cpu=2"),
        ("npu=1,gpu=1", "npu and gpu in one alternative"),
        ("speed=1", "name a device"),
        ("memory=0", "some bytes"),
        ("cpu=1,cpu=2", "'cpu' is there twice"),
        ("npu=nan", "amount 'nan' of npu"),
        ("memory=1GiB,model=x", "memory is asked for in bytes and alone"),
        ("cpu=1.5", "1.5 cpu is neither a fraction nor whole"),
        ("cpu=0", "got 0"),
        ("cpu=x", "amount 'x' of cpu"),
        ("cpu=1,speed=fast", "invalid speed 'fast'"),
    ],
)
def test_an_invalid_resource_request_is_refused_with_the_reason(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_resource_request(text)


@given(st.integers(0, 2**60))
def test_bytes_are_read_as_they_are_written(amount: int) -> None:
    assert parse_bytes(amount) == amount
    assert parse_bytes(f"{amount}B") == amount
    assert show_bytes(amount)


def test_durations_are_read_in_every_unit() -> None:
    assert [parse_seconds(t) for t in ("90s", "1.5h", "250ms", 3)] == [90, 5400, 0.25, 3]
    assert [parse_seconds(t) for t in ("1h30m", "1d 2h", "2m30s", "45")] == [5400, 93600, 150, 45]
    for wrong in ("30m1h", "1h1h", "1h30", "1h-30m", "", "h", "1y"):
        with pytest.raises(ValueError, match="is not a duration"):
            parse_seconds(wrong)


def test_bytes_are_read_as_slurm_and_docker_write_them() -> None:
    sizes = {"300M": 300 << 20, "2g": 2 << 30, "1K": 1024, "1T": 1 << 40}
    assert {text: parse_bytes(text) for text in sizes} == sizes


names = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True)
gangs = st.builds(
    lambda low, more, need: GangSpec(min=low, want=low + more, each=(need,)),
    st.integers(1, 4),
    st.integers(0, 4),
    st.builds(
        ResourceRequest,
        kind=st.sampled_from([DeviceKind.NPU, DeviceKind.CPU, DeviceKind.DPU]),
        milli=st.sampled_from([250, 1000, 2000]),
        memory_bytes=st.integers(0, 1 << 40),
        models=st.sampled_from([(), ("910B",), ("910B", "910C")]),
    ),
)


@given(st.builds(JobSpec, name=names, command=st.just(("x",)), gang=gangs))
def test_a_spec_survives_the_wire(spec: JobSpec) -> None:
    assert from_text(JobSpec, to_text(spec)) == spec


def test_the_wire_refuses_unknown_keys_and_nonsense() -> None:
    good = to_json(JobSpec(name="x", command=("a",)))
    changes: tuple[tuple[dict[str, object], str], ...] = (
        ({"naem": 1}, "naem: Unexpected"),
        ({"priority": "high"}, "priority: .* integer"),
        ({"gang": {"min": 0}}, "gang: .* min=0 want=1"),
        ({"name": "../x"}, r"'\.\./x'.* letter or digit first"),
    )
    for change, complaint in changes:
        with pytest.raises(ValueError, match=complaint):
            from_json(JobSpec, {**good, **change})


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../b", "", "a\\b"])
def test_an_artifact_cannot_reach_out_of_its_folder(path: str) -> None:
    with pytest.raises(ValueError, match="inside the artifact"):
        FileEntry(path=path, sha256="0" * 64, size_bytes=1)


def test_the_same_files_give_the_same_artifact() -> None:
    files = [FileEntry(path=p, sha256=p * 64, size_bytes=1) for p in ("a", "b")]
    one = ArtifactSpec(name="m", kind=ArtifactKind.MODEL, files=tuple(files))
    two = ArtifactSpec(name="m", kind=ArtifactKind.MODEL, files=tuple(reversed(files)))
    assert artifact_id(one) == artifact_id(two)
    other = ArtifactSpec(name="m", kind=ArtifactKind.MODEL, files=tuple(files), project="p")
    assert artifact_id(one) != artifact_id(other)


def test_roles_of_people_include_lesser_ones_and_roles_of_services_do_not() -> None:
    assert includes(Role.ADMIN, Role.VIEWER)
    assert not includes(Role.VIEWER, Role.MEMBER)
    assert not includes(Role.ADMIN, Role.NODE)
    assert not includes(Role.NODE, Role.VIEWER)


def test_settings_come_from_file_then_environment_then_flags() -> None:
    settings, origin = resolve("port = 1\ncpus = 3", {"KAREZ_PORT": "2"}, {"cpus": 5})
    assert (settings.port, settings.cpus) == (2, 5)
    assert (origin["port"], origin["cpus"], origin["home"]) == ("environment", "flag", "default")
    assert resolve("", {"KAREZ_PRELOAD": "false"}, {})[0].preload is False
    assert resolve("", {}, {})[0] == Settings()


@pytest.mark.parametrize(
    ("file", "env", "complaint"),
    [
        ("prot = 1", {}, "unknown key 'prot'; known: .*'port'"),
        ("", {"KAREZ_PORT": "many"}, "port should be int, not 'many'"),
        ("", {"KAREZ_PRELOAD": "?"}, "preload should be true or false"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name(
    file: str, env: dict[str, str], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        resolve(file, env, {})


def test_an_error_names_the_next_command_and_survives_pickling() -> None:
    error = QuotaExceeded(project="vision", kind="npu", asked="16", quota="8")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert isinstance(again, KarezError)
    assert "karez projects quota vision" in error.hint()
    assert len(every_error()) > 10
