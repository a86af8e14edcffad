import struct
from dataclasses import replace

from karez.core.jobs import Job, JobSpec
from karez.core.run_comparison import compared, described
from karez.core.tensorboard_events import crc32c, event_file
from karez.core.workloads import WorkloadId


def job(**settings: int) -> Job:
    spec = JobSpec(name="tune", recipe="sft-lora", settings=settings, inputs={"data": "art-1"})
    return Job(id=WorkloadId("job-1"), spec=spec, started_at=10.0, ended_at=12.5)


def test_runs_are_told_apart_by_what_differs() -> None:
    first, second = job(steps=3), job(steps=4, batch=8)
    second = replace(second, status=replace(second.status, loss=0.5))
    runs = [
        described(first, {}),
        described(second, {"model": {"accuracy": 0.9, "device": "cpu"}}),
    ]
    assert compared(runs, everything=False) == [
        ["setting steps", 3, 4],
        ["loss", None, 0.5],
        ["setting batch", None, 8],
        ["model/accuracy", None, 0.9],
    ]
    whole = {row[0]: row[1:] for row in compared(runs, everything=True)}
    assert whole["input data"] == ["art-1", "art-1"]
    assert whole["seconds"] == [2.5, 2.5]
    assert compared([runs[0], runs[0]], everything=False) == []


def test_the_checksum_is_castagnolis() -> None:
    """The vectors of RFC 3720, B.4."""
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


def test_an_event_file_is_records_of_events() -> None:
    data = event_file([(1, 0.5, 100.0), (300, 0.25, 101.0)], "loss")
    records = []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        records.append(data[12 : 12 + length])
        data = data[16 + length :]
    assert len(records) == 3
    assert b"brain.Event:2" in records[0]
    assert struct.unpack("<d", records[2][1:9]) == (101.0,)
    assert records[2][9:12] == b"\x10\xac\x02"  # step 300 as a varint
    assert records[2].endswith(b"\x0a\x04loss\x15" + struct.pack("<f", 0.25))
