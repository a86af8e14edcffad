"""Service files, and how many replicas are asked for."""

import pytest

from karez.core.call_limits import MinuteLimits
from karez.core.probes import Probe
from karez.core.servicefile import parse_replicas, parse_service
from karez.core.services import ServiceSpec

FULL = """
name = "support"
model = "support-v2-gguf"
project = "desk"
engine = "llamacpp"
replicas = "0..4"
idle = "10m"
each = ["npu=1", "cpu=2"]
context = 4096
parallel = 8
priority = 20
fallbacks = ["small"]
hedge = "500ms"
first_token = "2s"
schedules = ["mon-fri 08:00-18:00 3..10"]
requests_per_minute = 60

[probe]
prompt = "Where is my parcel?"
expect = "tracking"
"""


def test_a_full_file_is_read() -> None:
    spec = parse_service(FULL)
    assert (spec.name, spec.model, spec.project) == ("support", "support-v2-gguf", "desk")
    assert (spec.least, spec.replicas, spec.most, spec.range) == (0, 1, 4, "0..4")
    assert (spec.idle_s, spec.context_tokens, spec.parallel, spec.priority) == (600, 4096, 8, 20)
    assert (spec.fallbacks, spec.hedge_s, spec.first_token_s) == (("small",), 0.5, 2.0)
    assert [one.text for one in spec.schedules] == ["mon-fri 08:00-18:00 3..10"]
    assert spec.calls == MinuteLimits(requests_per_minute=60)
    assert [request.kind for request in spec.each] == ["npu", "cpu"]
    assert spec.probe == Probe(prompt="Where is my parcel?", expect="tracking")


def test_what_is_not_told_is_as_by_the_options() -> None:
    short = 'name = "s"\nmodel = "m"\n'
    assert parse_service(short) == ServiceSpec(name="s", model="m")
    assert parse_service(short + "replicas = 3\n").range == "3"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name = ", "invalid TOML"),
        ('model = "m"', "needs a name"),
        ('name = "s"', "needs a model"),
        ('name = "s"\nmodel = "m"\ngpus = 1', "unknown key 'gpus'"),
        ('name = "s"\nmodel = "m"\nreplicas = "many"', "a range as 0..4"),
        ('name = "s"\nmodel = "m"\nreplicas = "4..2"', "min <= replicas <= max"),
        ('name = "s"\nmodel = "m"\nreplicas = "0..0"', "min <= replicas <= max"),
        ('name = "s"\nmodel = "m"\nidle = "soon"', "soon"),
        ('name = "s"\nmodel = "m"\nidle = 0', "idle_s is between"),
        ('name = "s"\nmodel = "m"\nparallel = "8"', "a whole number"),
        ('name = "s"\nmodel = "m"\nparallel = true', "a whole number"),
        ('name = "s"\nmodel = "m"\ncontext = 1.5', "a whole number"),
        ('name = "s"\nmodel = "m"\nengine = 3', "should be text"),
        ('name = "s"\nmodel = 3', "needs a model"),
        ('name = "s"\nmodel = "m"\nidle = [1]', "should be a time"),
        ('name = "s"\nmodel = "m"\nhedge = true', "should be a time"),
        ('name = "s"\nmodel = "m"\nschedules = ["noon"]', "is no schedule"),
        ('name = "s"\nmodel = "m"\nschedules = "08:00-18:00 2"', "a list of hours"),
        ('name = "s"\nmodel = "m"\nhedge = 0', "hedge_s is between"),
        ('name = "s"\nmodel = "m"\ntokens_per_minute = -1', "a limit is 0 to"),
        ('name = "s"\nmodel = "m"\nfallbacks = "b"', "a list of names"),
        ('name = "s"\nmodel = "m"\nfallbacks = ["s"]', "are other ones"),
        ('name = "s"\nmodel = "m"\nfallbacks = ["b", "b"]', "are other ones"),
        ('name = "s"\nmodel = "m"\nidle = true', "should be a time"),
        ('name = "s"\nmodel = "m"\nreplicas = 1.5', "a range as 0..4"),
        ('name = "s"\nmodel = "m"\nreplicas = true', "a range as 0..4"),
        ('name = "s"\nmodel = "m"\neach = 3', "a list of alternatives"),
        ('name = "s"\nmodel = "m"\neach = [3]', "a list of alternatives"),
        ('name = "s"\nmodel = "m"\n[probe]\nprompt = 3', "should be text"),
        ('name = "s"\nmodel = "m"\nprobe = 1', "[probe] should be a table"),
        ('name = "s"\nmodel = "m"\n[probe]\nprompt = "x"', "a probe has a prompt and an answer"),
    ],
)
def test_what_cannot_be_read_is_said(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r".*") as error:
        parse_service(text)
    assert said in str(error.value)


def test_numbers_and_ranges_of_replicas() -> None:
    assert parse_replicas(2) == {"replicas": 2, "min_replicas": None, "max_replicas": None}
    assert parse_replicas("2..5") == {"replicas": 2, "min_replicas": 2, "max_replicas": 5}
    assert parse_replicas("0..5") == {"replicas": 1, "min_replicas": 0, "max_replicas": 5}


def test_a_replica_runs_as_another_unless_more_than_the_numbers_differ() -> None:
    spec = ServiceSpec(name="s", model="m")
    more = ServiceSpec(name="s", model="m", replicas=3, min_replicas=0, max_replicas=9, idle_s=5)
    assert spec.runs_as(more)
    assert more.runs_as(spec)
    assert not spec.runs_as(ServiceSpec(name="s", model="n"))
    assert not spec.runs_as(ServiceSpec(name="s", model="m", context_tokens=64))
